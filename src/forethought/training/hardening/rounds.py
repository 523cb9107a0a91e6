"""The loop: train, attack, add, train again, until the held-out requests fare no better.

After adversarial training (Madry et al. 2017, arXiv 1706.06083) and rounds of red teaming (Ganguli et al. 2022, arXiv
2209.07858). Each round is trained from the base model within the same budget of tokens a pass: what a round adds takes
the place of rows that are dropped at random.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from forethought.attacks.base import Given
from forethought.attacks.catalogue import parse_attack
from forethought.data.sources import within_budget
from forethought.errors import ConfigError, InputError, ModelError
from forethought.manifest import key_of, write_json
from forethought.models.conversation import Respondent
from forethought.models.local import LocalModel
from forethought.models.settings import SETTINGS_FILE, Settings, read_settings, write_settings
from forethought.records import AnyRecord, Example, Record
from forethought.training.hardening.attacking import Attacker, Counts, Found, Measured
from forethought.training.hardening.pairs import Pair, make_pool
from forethought.training.hardening.settings import HardeningSettings, shown_by
from forethought.training.methods.base import Job, Material
from forethought.training.methods.combined import PLAIN, Levers
from forethought.training.methods.supervised import SCOT
from forethought.training.rows import TokenRow
from forethought.training.run import train_method

TABLE_FILE = "hardening.json"
"""In the training's folder: its rounds, and which of them is the result."""
_OWN = "hardening"
"""In a round's folder: plans, replies and results, which are no part of the model."""


def round_folder(out: Path, number: int) -> Path:
    """Where a round's model stands."""
    return out / f"round-{number}"


def own_folder(out: Path, number: int) -> Path:
    """Where a round's attacks, rows and results stand."""
    return round_folder(out, number) / _OWN


def claim(out: Path, key: str) -> None:
    """Marks the folder as this hardening's. Raises ModelError where rounds of another one stand there."""
    path = out / TABLE_FILE
    if path.is_file():
        if read_json(path).get("key") != key:
            rule = "holds the rounds of another hardening (other model, rows or settings)"
            raise ModelError(out, rule, "Give another folder")
        return
    write_json(path, {"key": key, "best": None, "rounds": []})


def write_table(out: Path, key: str, results: Sequence[RoundResult], best: int | None) -> None:
    """Writes the rounds so far; `best` None is a hardening that goes on."""
    rounds = [one.model_dump(mode="json") for one in results]
    write_json(out / TABLE_FILE, {"key": key, "best": best, "rounds": rounds})


def publish(out: Path, number: int, settings: Settings) -> None:
    """A round's model becomes the result: its files are copied, and the settings are written last."""
    for file in sorted(round_folder(out, number).iterdir()):
        if file.is_file() and file.name != SETTINGS_FILE and not file.name.endswith(".part"):
            part = out / f"{file.name}.part"
            shutil.copyfile(file, part)
            os.replace(part, out / file.name)
    write_settings(out, settings)


def read_json(path: Path) -> Any:
    """What one of these files holds. Raises InputError for a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise InputError(path, "is damaged", "Delete the folder and train again") from None


def _known(file: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """What an earlier run kept; None where it did not come so far."""
    return kind.model_validate(read_json(file)) if file.is_file() else None


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
    key = _key(job, settings)
    rounds = _Rounds(job, settings)
    claim(job.out, key)
    results: list[RoundResult] = []
    while len(results) <= settings.rounds and not (results and _ends(job, results, settings)):
        result = rounds.next(len(results))
        if result is None:
            break
        results.append(result)
        write_table(job.out, key, results, None)
    best = best_round(results)
    trained = read_settings(round_folder(job.out, best))
    publish(job.out, best, trained.model_copy(update={"method": job.method.name}))
    write_table(job.out, key, results, best)
    for line in [*told(results), f"Round {best} is kept"]:
        job.progress.say(line)
    return results[best].trained.counts | {"rounds": float(len(results)), "best_round": float(best)}


def _ends(job: Job, results: list[RoundResult], settings: HardeningSettings) -> bool:
    ends = stopped_improving(results, settings.margin)
    if ends:
        what = "fare no better" if results[-1].measured.youden is not None else "can't be measured: nothing was scored"
        job.progress.say(f"The held-out requests {what}: hardening ends")
    return ends


def _key(job: Job, settings: HardeningSettings) -> str:
    material = job.material
    return key_of(
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
        self._added: list[Pair] = []
        self._loaded: tuple[int, Respondent] | None = None

    def next(self, number: int) -> RoundResult | None:
        """A round, or what an earlier run kept of it; None where the attacks found nothing to add."""
        own = own_folder(self._job.out, number)
        found = self._attack(number, own) if number else Found()
        if number and not found.pairs:
            self._job.progress.say("Nothing got through, and nothing harmless was refused: hardening ends")
            return None
        self._added += found.pairs
        file = own / "round.json"
        if (known := _known(file, RoundResult)) is not None:
            return known
        trained = self._train(number, own)
        start = time.monotonic()
        measured = self._attacker.held_out(own / "held-out", self._model(number))
        result = RoundResult(
            round=number,
            measured=measured,
            pairs=found.asked,
            attacks=Counts.model_validate(found.model_dump(include=set(Counts.model_fields))),
            trained=trained,
            seconds_attack=found.seconds + time.monotonic() - start,
        )
        write_json(file, result.model_dump(mode="json"))
        return result

    def _attack(self, number: int, own: Path) -> Found:
        """Attacks the model of the round before."""
        file = own / "found.json"
        if (known := _known(file, Found)) is not None:
            return known
        self._job.progress.say(f"Round {number}: attacking")
        found = self._attacker.round(number, own, self._model(number - 1))
        write_json(file, found.model_dump(mode="json"))
        n_through, n_refused = sum(found.got_through.values()), sum(found.falsely_refused.values())
        self._job.progress.say(f"Round {number}: {n_through} got through, {n_refused} harmless ones were refused")
        return found

    def _train(self, number: int, own: Path) -> Trained:
        """Trains the base model on the round's rows, and writes which attacks they showed it."""
        file = own / "trained.json"
        if (known := _known(file, Trained)) is not None:
            return known
        self._loaded = None
        gc.collect()  # the model that was attacked makes room for the one that is trained
        start, folder = time.monotonic(), round_folder(self._job.out, number)
        share, levers = self._settings.added_share, self._settings.levers
        chosen = round_rows(self._job.material, self._pool.trainable, self._added, self._budget, share, levers)
        counts = train_method(self._round_job(number, chosen))
        settings = read_settings(folder)
        seen = tuple(sorted({*settings.seen_operators, *shown_by(chosen.attacks)} - {"direct"}))
        write_settings(folder, settings.model_copy(update={"seen_operators": seen}))
        trained = Trained(
            rows=len(chosen.rows),
            added=chosen.added,
            left_out=chosen.left_out,
            tokens=sum(row.tokens for row in chosen.rows),
            seconds=time.monotonic() - start,
            counts=counts,
        )
        write_json(file, trained.model_dump(mode="json"))
        return trained

    def _round_job(self, number: int, chosen: RoundRows) -> Job:
        """The job of one run of the trainer: SCoT, with the levers of the settings, over exactly these rows; the model
        answers as the hardened one will."""
        job, levers = self._job, self._settings.levers
        material = dataclasses.replace(job.material, examples=chosen.examples)

        def rows(given: Material) -> list[TokenRow]:
            return list(chosen.rows) if given.examples is chosen.examples else levers.rows(given)  # others are held out

        name = job.method.name if number else SCOT.name
        update = {"name": name, "rows": rows, "procedure": levers.procedure}
        update |= {"answer_with": job.method.answer_with, "by_row": False}
        method = SCOT.model_copy(update=update)
        return dataclasses.replace(
            job, method=method, material=material, out=round_folder(job.out, number), max_tokens=None
        )

    def _model(self, number: int) -> Respondent:
        """The model of a round, loaded once."""
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = (number, LocalModel.load(str(round_folder(self._job.out, number))))
        return self._loaded[1]
