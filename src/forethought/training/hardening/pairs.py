"""A harmful and a harmless request under the same attack: what is asked together is taught together.

So a disguise, and a turn begun for the model, stand as often on a request to be answered as on one to be refused, and
carry no information. Only the examples that a method is given are used: test requests are not among them.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from forethought.attacks.base import Attack, Attacked, Given
from forethought.attacks.linguistic import augmented
from forethought.attacks.prepare import Preparation, prepare
from forethought.attacks.rewritten import Unfit
from forethought.attempts.records import PlannedAttempt
from forethought.data.evolve import sentence
from forethought.errors import InputError
from forethought.models.conversation import Able
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


def _share_of(n: int, settings: HardeningSettings) -> int:
    """How many of n requests are held out. A handful measures nothing, so small sets give more than their share."""
    return min(settings.requests, max(math.ceil(settings.held_out * n), min(_ENOUGH, n // 4)))


def _held_groups(
    harmful: Sequence[Example], harmless: Sequence[Example], settings: HardeningSettings, seed: int
) -> frozenset[str]:
    """Groups taken in an order that depends on content and seed alone, until both labels have their share."""
    sides = [Counter(one.request.cluster for one in side) for side in (harmful, harmless)]
    wanted = [_share_of(side.total(), settings) for side in sides]
    order = sorted({*sides[0], *sides[1]}, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    held: set[str] = set()
    have = [0, 0]
    for group in order:
        if any(side[group] and have[place] < wanted[place] for place, side in enumerate(sides)):
            held.add(group)
            have = [before + side[group] for before, side in zip(have, sides, strict=True)]
    return frozenset(held)


_SIGMA = 0.4
"""Strength of best-of-n's changes, its paper's (arXiv 2412.03556)."""


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


def deal(
    couples: Sequence[Couple],
    attacks: Sequence[Attack],
    each: int,
    seed: int,
    given: Given,
    able: Able,
) -> tuple[list[Pair], Counter[str]]:
    """Every couple under `each` of the attacks, all attacks as often; and what could not be run, by cause.

    Raises ConfigError and InputError as the attacks do.
    """
    order = random.Random(f"{seed}:deal").sample(list(attacks), len(attacks))
    each = min(each, len(order))
    dealt: dict[str, list[Couple]] = defaultdict(list)
    for place, couple in enumerate(couples):
        for turn in range(each):
            dealt[order[(place * each + turn) % len(order)].name].append(couple)
    pairs: list[Pair] = []
    not_run: Counter[str] = Counter()
    for attack in attacks:
        both = dealt[attack.name]
        requests = [one.request for couple in both for one in couple]
        planned = prepare(attack, requests, Preparation(seed, given, able))
        for (harmful, harmless), first, second in zip(both, planned[::2], planned[1::2], strict=True):
            if isinstance(first, Attacked) and isinstance(second, Attacked):
                sides = (Case(example=harmful, attacked=first), Case(example=harmless, attacked=second))
                pairs.append(Pair(attack=attack.name, harmful=sides[0], harmless=sides[1]))
            else:
                cause = next(one.cause for one in (first, second) if isinstance(one, Unfit))
                not_run[f"{attack.name}: {cause}"] += 1
    return pairs, not_run


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
