"""A harmful and a harmless request under the same attack: what is asked together is taught together.

So a disguise, and a turn begun for the model, stand as often on a request to be answered as on one to be refused, and
carry no information.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from forethought.data.restyle import sentence
from forethought.engine.conversation import Able
from forethought.evals.attacks.base import Attack, Attacked, Given
from forethought.evals.attacks.linguistic import augmented
from forethought.evals.attacks.prepare import prepare
from forethought.evals.suite.records import PlannedAttempt
from forethought.records import Example, Record
from forethought.train.hardening.pool import Couple

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
        planned = prepare([attack], requests, seed, given, able)
        for (harmful, harmless), first, second in zip(both, planned[::2], planned[1::2], strict=True):
            if first.attacked is None or second.attacked is None:
                not_run[f"{attack.name}: {first.cause or second.cause}"] += 1
                continue
            sides = (Case(example=harmful, attacked=first.attacked), Case(example=harmless, attacked=second.attacked))
            pairs.append(Pair(attack=attack.name, harmful=sides[0], harmless=sides[1]))
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
