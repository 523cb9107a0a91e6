"""The loop: train, attack, add, train again, until the held-out requests fare no better.

After adversarial training (Madry et al. 2017, arXiv 1706.06083) and rounds of red teaming (Ganguli et al. 2022, arXiv
2209.07858). Each round is trained from the base model within the same budget of tokens a pass: what a round adds takes
the place of rows that are dropped at random.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from forethought.attacks.base import Given
from forethought.attacks.catalogue import parse_attack
from forethought.data.sources import within_budget
from forethought.errors import ConfigError, ModelError
from forethought.manifest import key_of, write_json
from forethought.models.conversation import Respondent
from forethought.models.local import LocalModel
from forethought.models.settings import SETTINGS_FILE, read_settings, write_settings
from forethought.records import AnyRecord, Example, Record, read_record
from forethought.training.hardening.attacking import Attacker, Counts, Found, Measured, Pair, make_pool
from forethought.training.hardening.settings import HardeningSettings, shown_by
from forethought.training.methods.base import Job, Material
from forethought.training.methods.supervised import SCOT
from forethought.training.methods.verdict import PLAIN, Levers
from forethought.training.rows import TokenRow
from forethought.training.run import train_method

TABLE_FILE = "hardening.json"
"""In the training's folder: its rounds, and which of them is the result."""


@dataclass(frozen=True)
class RoundRows:
    """What one round is trained on."""

    rows: tuple[TokenRow, ...]
    examples: tuple[Example, ...]
    """The examples that the rows were made of, in the same order."""
    added: int
    """Rows that attacks added; they come last."""
    left_out: int
    """Pairs for which the budget had no room."""
    attacks: tuple[str, ...]
    """Attacks of the pairs that are trained on, sorted."""


def round_rows(
    material: Material,
    trainable: Sequence[Example],
    added: Sequence[Pair],
    budget: int,
    added_share: float,
    levers: Levers = PLAIN,
) -> RoundRows:
    """The rows of a round within a budget of tokens.

    Pairs are taken whole, at random, until they fill `added_share` of the budget; then old rows, at random, until it
    is full. An old row that an attack added again is not taken twice.
    """
    kept, new = _within_share(material, added, int(budget * added_share), levers)
    left = budget - sum(row.tokens for row in new)
    pool = [(row, example) for example in trainable if (row := levers.row(material, example)) not in new]
    chosen = [pool[place] for place in within_budget([row.tokens for row, _ in pool], left, material.seed)]
    return RoundRows(
        rows=(*(row for row, _ in chosen), *new),
        examples=(*(example for _, example in chosen), *new.values()),
        added=len(new),
        left_out=len(added) - len(kept),
        attacks=tuple(sorted({pair.attack for pair in kept})),
    )


def _within_share(
    material: Material, added: Sequence[Pair], most: int, levers: Levers
) -> tuple[list[Pair], dict[TokenRow, Example]]:
    """The pairs that fit into so many tokens, and their rows, each once, with its example."""
    order = random.Random(f"{material.seed}:added").sample(range(len(added)), len(added))
    chosen: list[int] = []
    taken: set[TokenRow] = set()
    spent = 0
    for place in order:
        rows = _rows_of(material, added[place], levers).keys() - taken
        cost = sum(row.tokens for row in rows)
        if spent + cost <= most:
            chosen.append(place)
            taken |= rows
            spent += cost
    kept = [added[place] for place in sorted(chosen)]
    return kept, {row: example for pair in kept for row, example in _rows_of(material, pair, levers).items()}


def _rows_of(material: Material, pair: Pair, levers: Levers) -> dict[TokenRow, Example]:
    return {levers.row(material, case.taught): case.taught for case in (pair.harmful, pair.harmless)}


class Trained(Record):
    """What a round was trained on."""

    rows: int
    added: int = 0
    """Of them, those that attacks added, in this round and before."""
    left_out: int = 0
    """Pairs that were added and found no room in the budget."""
    tokens: int
    """Of all rows, prompts included."""
    seconds: float = 0.0
    counts: dict[str, float] = Field(default_factory=dict)
    """As the trainer returns them."""


class RoundResult(Record):
    """One round: what its attacks added, and how the model fared that was trained on it."""

    round: int
    """0 is the first training, without attacks."""
    measured: Measured
    pairs: int = 0
    """Pairs that were asked or searched."""
    attacks: Counts = Counts()
    trained: Trained
    seconds_attack: float = 0.0
    """Attacks of this round and the held-out measure; of the last run, where one was stopped."""


class Table(Record):
    """What a hardening has come to: the file `hardening.json`."""

    key: str
    """Of all that it depends on."""
    best: int | None = None
    """The round that is the result; None where it goes on."""
    rounds: tuple[RoundResult, ...] = ()


def best_round(results: Sequence[RoundResult]) -> int:
    """The round with the highest J; of equal ones the earliest. An unmeasured one is the last choice."""
    return max(range(len(results)), key=lambda place: (_value(results[place]), -place))


def stopped_improving(results: Sequence[RoundResult], margin: float) -> bool:
    """Whether the last round added less than `margin` to the best J before it; also where J can't be told."""
    last = _value(results[-1])
    if len(results) < 2:
        return math.isinf(last)
    gain = last - max(_value(one) for one in results[:-1])
    return not gain >= margin - 1e-12  # shares of small numbers: a gain of exactly the margin is one


def told(results: Sequence[RoundResult]) -> list[str]:
    """The rounds as a table of plain lines."""
    lines = [f"{'round':>5} {'J':>6} {'ASR':>6} {'false':>6} {'unsc.':>5} {'added':>6} {'rows':>6} {'s':>6}"]
    for one in results:
        m, trained = one.measured, one.trained
        shares = " ".join(
            f"{'-' if value is None else f'{value:.2f}':>6}" for value in (m.youden, m.asr, m.false_refusal)
        )
        seconds = one.seconds_attack + trained.seconds
        lines.append(f"{one.round:>5} {shares} {m.unscored:>5} {trained.added:>6} {trained.rows:>6} {seconds:>6.0f}")
    return lines


def _value(result: RoundResult) -> float:
    value = result.measured.youden
    return -math.inf if value is None or math.isnan(value) else value


def harden(job: Job, settings: HardeningSettings) -> dict[str, float]:
    """Trains in rounds; the best round's model becomes the job's. Returns its counts, and the number of rounds.

    Finished rounds and every answer are kept: a run that was killed goes on where it was. Raises ConfigError for an
    unknown attack and for several processes, InputError for too few rows, ModelError where `job.out` holds another
    hardening, and StageError where the model stops answering.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"method '{job.method.name}'", "runs in one process", "Start it without accelerate launch")
    rounds = _Rounds(job, settings)
    table = _begun(job, settings)
    while len(table.rounds) <= settings.rounds and not (table.rounds and _ends(job, table.rounds, settings)):
        result = rounds.next(len(table.rounds))
        if result is None:
            break
        table = table.model_copy(update={"best": None, "rounds": (*table.rounds, result)})
        write_json(job.out / TABLE_FILE, table.model_dump(mode="json"))
    best = best_round(table.rounds)
    rounds.publish(best)
    write_json(job.out / TABLE_FILE, table.model_copy(update={"best": best}).model_dump(mode="json"))
    for line in [*told(table.rounds), f"Round {best} is kept"]:
        job.progress.say(line)
    return table.rounds[best].trained.counts | {"rounds": float(len(table.rounds)), "best_round": float(best)}


def _begun(job: Job, settings: HardeningSettings) -> Table:
    """What stands in the folder of this hardening. Raises ModelError where rounds of another one stand there."""
    material = job.material
    key = key_of(
        {
            "base": job.base,
            "examples": [example.model_dump(mode="json") for example in material.examples],
            "material": [material.policy.model_dump(mode="json"), material.format, material.detail, material.seed],
            "config": job.config.model_dump(mode="json"),
            "max_tokens": job.max_tokens,
            "answer_with": job.method.answer_with,
            "settings": settings.model_dump(mode="json"),
        }
    )
    found = _kept(job.out / TABLE_FILE, Table) or Table(key=key)
    if found.key != key:
        rule = "holds the rounds of another hardening (other model, rows or settings)"
        raise ModelError(job.out, rule, "Give another folder")
    write_json(job.out / TABLE_FILE, found.model_dump(mode="json"))
    return found


def _kept(file: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """What an earlier run kept; None where it did not come so far. Raises InputError for a damaged file."""
    return read_record(file, kind, "Delete the folder and train again") if file.is_file() else None


def _ends(job: Job, results: Sequence[RoundResult], settings: HardeningSettings) -> bool:
    ends = stopped_improving(results, settings.margin)
    if ends:
        what = "fare no better" if results[-1].measured.youden is not None else "can't be measured: nothing was scored"
        job.progress.say(f"The held-out requests {what}: hardening ends")
    return ends


class _Rounds:
    """Does round after round; holds all that attacks added, and the model that is attacked next."""

    def __init__(self, job: Job, settings: HardeningSettings) -> None:
        self._job, self._settings = job, settings
        material = job.material
        self._pool = make_pool(material.examples, settings, material.seed)
        attacks = tuple(parse_attack(spec) for spec in settings.attacks)
        given = Given(policy=material.policy, format=material.format)
        self._attacker = Attacker(self._pool, attacks, settings, given, material.seed)
        rows = [settings.levers.row(material, example) for example in self._pool.trainable]
        self._budget = job.max_tokens if job.max_tokens is not None else sum(row.tokens for row in rows)
        self._loaded: tuple[int, Respondent] | None = None

    def folder(self, number: int) -> Path:
        """Where a round's model stands, and in `hardening` there its attacks: plans, replies and what came of them."""
        return self._job.out / f"round-{number}"

    def next(self, number: int) -> RoundResult | None:
        """Does a round; None where the attacks found nothing to add."""
        found = [self._found(each) for each in range(1, number + 1)]
        if found and not found[-1].pairs:
            self._job.progress.say("Nothing got through, and nothing harmless was refused: hardening ends")
            return None
        trained = self._train(number, [pair for one in found for pair in one.pairs])
        start, last = time.monotonic(), found[-1] if found else Found()
        measured = self._attacker.held_out(self.folder(number) / "hardening" / "held-out", self._model(number))
        return RoundResult(
            round=number,
            measured=measured,
            pairs=last.asked,
            attacks=last.counts,
            trained=trained,
            seconds_attack=last.seconds + time.monotonic() - start,
        )

    def _found(self, number: int) -> Found:
        """What a round's attacks on the model of the round before came to; asked once, and kept."""
        own = self.folder(number) / "hardening"
        if (known := _kept(own / "found.json", Found)) is not None:
            return known
        self._job.progress.say(f"Round {number}: attacking")
        found = self._attacker.round(number, own, self._model(number - 1))
        write_json(own / "found.json", found.model_dump(mode="json"))
        n_through, n_refused = (sum(n.values()) for n in (found.counts.got_through, found.counts.falsely_refused))
        self._job.progress.say(f"Round {number}: {n_through} got through, {n_refused} harmless ones were refused")
        return found

    def _train(self, number: int, added: Sequence[Pair]) -> Trained:
        """Trains the base model on the round's rows: SCoT, with the levers of the settings; the model answers as the
        hardened one will. Writes which attacks its rows showed it."""
        self._loaded = None
        gc.collect()  # the model that was attacked makes room for the one that is trained
        start, job, folder = time.monotonic(), self._job, self.folder(number)
        share, levers = self._settings.added_share, self._settings.levers
        chosen = round_rows(job.material, self._pool.trainable, added, self._budget, share, levers)

        def rows(given: Material) -> list[TokenRow]:
            return list(chosen.rows) if given.examples is chosen.examples else levers.rows(given)  # others are held out

        name = job.method.name if number else SCOT.name
        update = {"name": name, "rows": rows, "procedure": levers.procedure}
        update |= {"answer_with": job.method.answer_with, "by_row": False}
        material = dataclasses.replace(job.material, examples=chosen.examples)
        method = SCOT.model_copy(update=update)
        counts = train_method(dataclasses.replace(job, method=method, material=material, out=folder, max_tokens=None))
        settings = read_settings(folder)
        seen = tuple(sorted({*settings.seen_operators, *shown_by(chosen.attacks)} - {"direct"}))
        write_settings(folder, settings.model_copy(update={"seen_operators": seen}))
        return Trained(
            rows=len(chosen.rows),
            added=chosen.added,
            left_out=chosen.left_out,
            tokens=sum(row.tokens for row in chosen.rows),
            seconds=time.monotonic() - start,
            counts=counts,
        )

    def _model(self, number: int) -> Respondent:
        """The model of a round, loaded once."""
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = (number, LocalModel.load(str(self.folder(number))))
        return self._loaded[1]

    def publish(self, number: int) -> None:
        """A round's model becomes the result: its files are copied, and the settings are written last."""
        folder = self.folder(number)
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name != SETTINGS_FILE:
                shutil.copyfile(file, self._job.out / file.name)
        settings = read_settings(folder).model_copy(update={"method": self._job.method.name})
        write_settings(self._job.out, settings)
