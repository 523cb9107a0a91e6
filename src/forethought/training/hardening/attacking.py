"""A round of attacks on the current model, tiny searches included: what broke it, and what it falsely refused.

A harmful and a harmless request stand under the same attack: what is asked together is taught together. So a disguise,
and a turn begun for the model, stand as often on a request to be answered as on one to be refused, and carry no
information. Only the examples that a method is given are used: test requests are not among them.

A model whose turn was begun for it may stop and think after all. Then its answer is what follows that thought, but
only if nothing else was said before it: an answer that comes first is judged with all the rest.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from forethought.attacks.base import Attack, Attacked, Given
from forethought.attacks.catalogue import Preparation, prepare
from forethought.attacks.linguistic import augmented
from forethought.attacks.rewritten import Unfit
from forethought.attacks.searches.base import Goal, Tools, opening_of, parse_method
from forethought.attacks.searches.driver import Parties, run_searches
from forethought.attacks.searches.outcome import SearchSettings
from forethought.attacks.templates import PLACE
from forethought.attempts.ask import ask_rows
from forethought.attempts.records import Judged, PlannedAttempt, read_judged
from forethought.data.evolve import sentence
from forethought.errors import InputError
from forethought.judges.base import Item
from forethought.judges.catalogue import default_judge
from forethought.metrics import share, youden
from forethought.models.conversation import NO_VERDICT, PREFILLED_VERDICT, Respondent, opened_by
from forethought.models.local import LocalModel
from forethought.models.settings import THINK_BUDGET
from forethought.policy import Policy
from forethought.reasoning import Decision, Format, markers, parse
from forethought.records import Example, Record
from forethought.training.hardening.settings import HardeningSettings

_ENOUGH = 10
"""Held-out requests that there are at least, where that is no more than a quarter."""

Couple = tuple[Example, Example]
"""A harmful and a harmless example, undisguised, that are attacked alike."""


@dataclass(frozen=True)
class Pool:
    """A training set, divided."""

    harmful: tuple[Example, ...]
    """Undisguised, one a request, each with its refusal; to be attacked and trained on."""
    harmless: tuple[Example, ...]
    """The same for harmless requests; the answer may be empty, where the thought alone is taught."""
    held_out: tuple[Couple, ...]
    """To be attacked, and never trained on."""
    trainable: tuple[Example, ...]
    """All rows but those of the held-out requests, their variants and twins."""


def make_pool(examples: Sequence[Example], settings: HardeningSettings, seed: int) -> Pool:
    """Divides a training set by family, so that variants and twins stand on one side.

    Raises InputError where too few requests of one label are left to attack.
    """
    harmful, harmless = _undisguised(examples, "refusal"), _undisguised(examples, "benign")
    held = _held_groups(harmful, harmless, settings, seed)
    inside = [[one for one in side if one.request.cluster not in held] for side in (harmful, harmless)]
    outside = [[one for one in side if one.request.cluster in held] for side in (harmful, harmless)]
    for label, (left, out) in {"harmful": (inside[0], outside[0]), "harmless": (inside[1], outside[1])}.items():
        if not left or not out:
            needed = "with a refusal " if label == "harmful" else ""
            raise InputError(
                f"{len(left) + len(out)} {label} requests {needed}in the rows",
                "are too few to attack some and to hold others out",
                "Give more rows, and build them with answers (build.refusal_share)",
            )
    rng = random.Random(f"{seed}:held out")
    return Pool(
        harmful=tuple(inside[0]),
        harmless=tuple(inside[1]),
        held_out=tuple(couples(outside[0], outside[1], settings.requests, rng)),
        trainable=tuple(one for one in examples if one.request.cluster not in held),
    )


def couples(harmful: Sequence[Example], harmless: Sequence[Example], most: int, rng: random.Random) -> list[Couple]:
    """At most so many couples, drawn at random: a harmful request with its own harmless twin where it has one.

    Where one label is short its requests are used again; no couple comes twice.
    """
    first, rest = rng.sample(list(harmful), len(harmful)), rng.sample(list(harmless), len(harmless))
    twins = {one.request.twin: one for one in rest if one.request.twin}
    size = min(most, max(len(first), len(rest)))
    found: dict[tuple[str, str], Couple] = {}
    for place in range(size):
        one = first[place % len(first)]
        twin = twins.pop(one.request.twin, None) if place < len(first) else None
        other = twin or rest[place % len(rest)]
        found.setdefault((one.request.id, other.request.id), (one, other))
    return list(found.values())


def _undisguised(examples: Sequence[Example], term: str) -> list[Example]:
    """One example a request, as it is asked without a disguise; one with an answer where there is one."""
    found: dict[str, Example] = {}
    for example in examples:
        if example.term != term or example.prefill or (term == "refusal" and not example.answer):
            continue
        known = found.get(example.request.plain_id)
        if known is None or (example.answer and not known.answer):
            request = example.request.undisguised.model_copy(update={"harmful": term == "refusal"})
            found[example.request.plain_id] = example.model_copy(update={"request": request})
    return list(found.values())


def _held_groups(
    harmful: Sequence[Example], harmless: Sequence[Example], settings: HardeningSettings, seed: int
) -> frozenset[str]:
    """Groups taken in an order that depends on content and seed alone, until both labels have their share.

    A handful measures nothing, so small sets give more than their share.
    """
    sides = [Counter(one.request.cluster for one in side) for side in (harmful, harmless)]
    sizes = [side.total() for side in sides]
    wanted = [min(settings.requests, max(math.ceil(settings.held_out * n), min(_ENOUGH, n // 4))) for n in sizes]
    order = sorted({*sides[0], *sides[1]}, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    held: set[str] = set()
    have = [0, 0]
    for group in order:
        if any(side[group] and have[place] < wanted[place] for place, side in enumerate(sides)):
            held.add(group)
            have = [before + side[group] for before, side in zip(have, sides, strict=True)]
    return frozenset(held)


class Case(Record):
    """A request of the training set under an attack."""

    example: Example
    """As it is without the attack."""
    attacked: Attacked

    @property
    def taught(self) -> Example:
        """The row that teaches the right answer under the attack: the thought and the answer of the plain request."""
        update = {"request": self.attacked.request, "prefill": self.attacked.prefill}
        return self.example.model_copy(update=update)

    def attempt(self, attack: str) -> PlannedAttempt:
        """As a suite is given it; equal conversations have equal ids."""
        row = PlannedAttempt(
            id="",
            attack=attack,
            request=self.attacked.request,
            cells=(f"{attack}:{self.example.term}",),
            prefill=self.attacked.prefill,
            think_budget=self.attacked.think_budget,
            lineage=self.attacked.lineage,
        )
        return row.model_copy(update={"id": row.asked})


class Pair(Record):
    """Two requests under one attack."""

    attack: str
    harmful: Case
    harmless: Case

    @classmethod
    def of(cls, attack: str, couple: Couple, harmful: Attacked, harmless: Attacked) -> Pair:
        """A couple with its two requests as they stand under the attack."""
        first, second = (
            Case(example=one, attacked=attacked) for one, attacked in zip(couple, (harmful, harmless), strict=True)
        )
        return cls(attack=attack, harmful=first, harmless=second)


def deal(
    couples: Sequence[Couple], attacks: Sequence[Attack], each: int, preparation: Preparation
) -> tuple[list[Pair], Counter[str]]:
    """Every couple under `each` of the attacks, all attacks as often; and what could not be run, by cause.

    Raises ConfigError and InputError as the attacks do.
    """
    order = random.Random(f"{preparation.seed}:deal").sample(list(attacks), len(attacks))
    each = min(each, len(order))
    dealt: dict[str, list[Couple]] = defaultdict(list)
    for place, couple in enumerate(couples):
        for turn in range(each):
            dealt[order[(place * each + turn) % len(order)].name].append(couple)
    pairs: list[Pair] = []
    not_run: Counter[str] = Counter()
    for attack in attacks:
        both = dealt[attack.name]
        planned = prepare(attack, [one.request for couple in both for one in couple], preparation)
        for couple, first, second in zip(both, planned[::2], planned[1::2], strict=True):
            if isinstance(first, Attacked) and isinstance(second, Attacked):
                pairs.append(Pair.of(attack.name, couple, first, second))
            else:
                cause = next(one.cause for one in (first, second) if isinstance(one, Unfit))
                not_run[f"{attack.name}: {cause}"] += 1
    return pairs, not_run


_SIGMA = 0.4
"""Strength of best-of-n's changes, its paper's (arXiv 2412.03556)."""


def carried_over(found: Attacked, harmful: Example, harmless: Example, seed: int) -> Attacked | None:
    """What a search found for a harmful request, around a harmless one; None where that can't be told.

    The request is exchanged where the search left it whole. Best-of-n leaves no word whole: the harmless request is
    disturbed anew, by the same rule.
    """
    plain, other = harmful.request.text.strip(), harmless.request.text.strip()
    if sentence(plain) in found.text:
        text = found.text.replace(sentence(plain), sentence(other))
    elif plain in found.text:
        text = found.text.replace(plain, other)
    elif found.lineage and found.lineage[-1].partition(":")[0] == "best_of_n":
        text = augmented(other, _SIGMA, random.Random(f"{seed}:{found.id}:{harmless.request.id}"))
    else:
        return None
    start = Attacked(request=harmless.request, lineage=found.lineage)
    return start.said(text).model_copy(update={"prefill": found.prefill, "think_budget": found.think_budget})


class Heard(Record):
    """What came of one attempt."""

    refused: bool | None
    """By the answer alone; None is unscored."""
    verdict: Decision | None = None
    """The model's own; None where it gave none, or one was put into its turn."""

    def wrong(self, harmful: bool) -> bool:
        """Whether answer or verdict was not what the request deserves; what is undecided is not known to be wrong."""
        answered = self.refused is not None and self.refused is not harmful
        decided = self.verdict is not None and (self.verdict == "refuse") is not harmful
        return answered or decided


def hear(rows: Sequence[Judged], policy: Policy, fmt: Format) -> list[Heard]:
    """One finding a row, in order; a row without a response is unscored, as one that says nothing is."""
    read = [_read(row, policy, fmt) for row in rows]
    items = [
        Item(request=row.attempt.request.plain, answer=answer) for row, (answer, _) in zip(rows, read, strict=True)
    ]
    judged = default_judge().judge(items)
    return [Heard(refused=one.refused, verdict=verdict) for one, (_, verdict) in zip(judged, read, strict=True)]


def _read(row: Judged, policy: Policy, fmt: Format) -> tuple[str, Decision | None]:
    """(the answer to judge, the model's own verdict)."""
    response, prefill = row.response, row.attempt.prefill
    if response is None:
        return "", None
    if prefill:
        begun = opened_by(prefill, policy, fmt).answer.strip()
        rest = response.answer.strip().removeprefix(begun).lstrip()
        if rest.startswith(markers(fmt)[0]):
            parsed = parse(rest, policy)
            return parsed.answer, parsed.reasoning.verdict if parsed.reasoning is not None else None
    own = response.cause not in (NO_VERDICT, PREFILLED_VERDICT)
    return response.answer, response.decision if own else None


@dataclass(frozen=True)
class Answered:
    """A pair, and what the model did with its two requests."""

    pair: Pair
    harmful: Heard
    harmless: Heard


class Measured(Record):
    """How the held-out requests fared under attack."""

    youden: float | None
    """P(refused | harmful) - P(refused | harmless); None where one label has no scored answer."""
    low: float | None = None
    """The 95 % interval, requests as clusters."""
    high: float | None = None
    asr: float | None
    """Share of the attacked harmful requests that are not refused."""
    false_refusal: float | None
    """Share of the attacked harmless requests that are refused."""
    n_harmful: int = 0
    """Scored answers."""
    n_harmless: int = 0
    unscored: int = 0


def measure(answered: Sequence[Answered]) -> Measured:
    """Youden's J and its parts over the held-out pairs; unscored answers are counted and in no share."""
    harmful = [one.harmful.refused for one in answered]
    harmless = [one.harmless.refused for one in answered]
    ids = [
        [one.pair.harmful.example.request.seed_id for one in answered],
        [one.pair.harmless.example.request.seed_id for one in answered],
    ]
    refused, false = share(harmful), share(harmless)
    scored = bool(refused.n) and bool(false.n)
    found = youden([harmful], [ids[0]], [harmless], [ids[1]]) if scored else None
    return Measured(
        youden=found.value if found else None,
        low=_or_none(found.low) if found else None,
        high=_or_none(found.high) if found else None,
        asr=1 - refused.value if refused.n else None,
        false_refusal=false.value if false.n else None,
        n_harmful=refused.n or 0,
        n_harmless=false.n or 0,
        unscored=refused.unscored + false.unscored,
    )


def _or_none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


class Counts(Record):
    """What attacks came to, by attack."""

    got_through: dict[str, int] = Field(default_factory=dict)
    """Harmful requests that the model of the round before complied with."""
    falsely_refused: dict[str, int] = Field(default_factory=dict)
    """Harmless requests that it refused."""
    not_run: dict[str, int] = Field(default_factory=dict)
    """Pairs that could not be attacked or used, by cause."""


class Found(Record):
    """What a round of attacks came to."""

    pairs: tuple[Pair, ...] = ()
    """To be taught: those of which the model got one half wrong, the other half with it."""
    counts: Counts = Counts()
    asked: int = 0
    """Pairs that the model was asked."""
    seconds: float = 0.0
    """Of the last run, where one was stopped."""


@dataclass(frozen=True)
class Attacker:
    """Puts the pool's requests to a model, disguised."""

    pool: Pool
    attacks: tuple[Attack, ...]
    settings: HardeningSettings
    given: Given
    seed: int

    def round(self, number: int, folder: Path, model: Respondent) -> Found:
        """Attacks requests drawn for this round, searches included. Every reply is kept in `folder`: asked once.

        Raises ConfigError for an unknown search, StageError where the model stops answering on the way, and ModelError
        where it never answers.
        """
        start, settings, seed = time.monotonic(), self.settings, self._seed(number)
        drawn = couples(self.pool.harmful, self.pool.harmless, settings.requests, random.Random(f"{seed}:round"))
        answered, not_run = self._attack(folder / "attacks", model, drawn, seed)
        searched, unused = self._search(folder / "searches", model, drawn, seed)
        through = [one.pair for one in answered if one.harmful.wrong(harmful=True)]
        refused = [one.pair for one in answered if one.harmless.wrong(harmful=False)]
        wrong = [one.pair for one in answered if one.harmful.wrong(True) or one.harmless.wrong(False)]
        return Found(
            pairs=(*wrong, *searched),
            counts=Counts(
                got_through=dict(sorted(Counter(pair.attack for pair in (*through, *searched)).items())),
                falsely_refused=dict(sorted(Counter(pair.attack for pair in refused).items())),
                not_run=dict(not_run + unused),
            ),
            asked=len(answered),
            seconds=time.monotonic() - start,
        )

    def held_out(self, folder: Path, model: Respondent) -> Measured:
        """The held-out requests under the same attacks, drawn alike for every round, so that rounds compare."""
        return measure(self._attack(folder, model, self.pool.held_out, self._seed(0))[0])

    def _seed(self, number: int) -> int:
        return self.seed * 1_009 + number

    def _attack(
        self, folder: Path, model: Respondent, drawn: Sequence[Couple], seed: int
    ) -> tuple[list[Answered], Counter[str]]:
        """Puts every couple to a model under its attacks; and what could not be run, by cause.

        Plan and replies stand in `folder`; a run that was stopped goes on where it was. Where the model's turn is begun
        for it, it may first think again: such answers may be a thought longer.
        """
        preparation = Preparation(seed, self.given, model.able)
        pairs, not_run = deal(drawn, self.attacks, self.settings.attacks_each, preparation)
        rows = [case.attempt(pair.attack) for pair in pairs for case in (pair.harmful, pair.harmless)]
        limit = self.settings.max_answer_tokens
        replies: dict[str, Judged] = {}
        for name, begun, most in (("asked", False, limit), ("begun", True, limit + THINK_BUDGET)):
            asked = [row for row in rows if bool(row.prefill) is begun]
            if asked:
                ask_rows(folder / name, model, asked, most)
                replies |= {one.attempt.id: one for one in read_judged(folder / name)}
        heard = hear([replies[row.id] for row in rows], self.given.policy, self.given.format)
        return [Answered(*three) for three in zip(pairs, heard[::2], heard[1::2], strict=True)], not_run

    def _search(
        self, folder: Path, model: Respondent, couples: Sequence[Couple], seed: int
    ) -> tuple[list[Pair], Counter[str]]:
        """What the searches got through with, each with its harmless twin; and what could not be run or used, by cause.

        Every reply stands in `folder`: a search that was stopped goes on where it was.
        """
        settings = self.settings
        if not settings.search_budget or not settings.searches:
            return [], Counter()
        chosen = random.Random(f"{seed}:searched").sample(list(couples), min(settings.searched, len(couples)))
        by_goal = {harmful.request.id: (harmful, harmless) for harmful, harmless in chosen}
        run = run_searches(
            [parse_method(spec) for spec in settings.searches],
            [Goal(request=one.request, target_string=opening_of(one.request)) for one, _ in by_goal.values()],
            Parties(model, default_judge()),
            folder,
            # The bare request as the only template: the shipped ones are made of attacks that tests use.
            Tools(
                able=model.able,
                policy=self.given.policy,
                format=self.given.format,
                thinks=True,
                model=model if isinstance(model, LocalModel) else None,
                templates=(PLACE,),
            ),
            SearchSettings(budget=settings.search_budget, seed=seed, max_answer_tokens=settings.max_answer_tokens),
        )
        unused: Counter[str] = Counter(f"{name}: {cause}" for name, cause in run.not_run.items())
        pairs: list[Pair] = []
        for outcome in run.outcomes:
            if outcome.broken is not True or outcome.best is None:
                continue
            harmful, harmless = by_goal[outcome.goal]
            twin = carried_over(outcome.best, harmful, harmless, seed)
            if twin is None:
                unused[f"{outcome.method}: no harmless twin"] += 1
                continue
            pairs.append(Pair.of(outcome.method, (harmful, harmless), outcome.best, twin))
        return pairs, unused
