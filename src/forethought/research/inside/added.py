"""What does the thought add? The verdict with the model's own thought, without one, and with another request's."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from forethought.metrics import Figure, mean_auroc
from forethought.records import Record
from forethought.research.inside.sample import cells, unscored_by_group
from forethought.research.inside.thoughts import OnDone, Thought, verdicts

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

Kind = Literal["own", "empty", "other"]
KINDS: tuple[Kind, ...] = ("own", "empty", "other")


class Verdicts(Record):
    """Log-odds of the verdicts on the same requests, in their order; None without one."""

    own: tuple[float | None, ...]
    """After the model's own thought."""
    empty: tuple[float | None, ...]
    """Right at the start of the thought."""
    other: tuple[float | None, ...]
    """After the thought of another request of the same style, whatever its label."""

    def of(self, kind: Kind) -> tuple[float | None, ...]:
        """By name."""
        return {"own": self.own, "empty": self.empty, "other": self.other}[kind]


def others(thoughts: Sequence[Thought], seed: int = 0) -> list[str | None]:
    """For each thought that of another family in the same style, over both labels alike; None where there is none.

    Over both labels: a thought that says nothing about the request then says nothing about its label either.
    """
    rng = random.Random(f"{seed}:others")
    found: list[str | None] = []
    for one in thoughts:
        label = rng.random() < 0.5
        lenders = [other for other in thoughts if _lends(other, one)]
        side = [other for other in lenders if other.request.harmful is label] or lenders
        found.append(rng.choice(side).before if side else None)
    return found


def _lends(other: Thought, one: Thought) -> bool:
    apart = other.request.cluster != one.request.cluster
    return apart and other.asked.style == one.asked.style and other.log_odds is not None


def run_kinds(model: LocalModel, thoughts: Sequence[Thought], seed: int = 0, on_done: OnDone | None = None) -> Verdicts:
    """The verdicts of all three kinds."""
    requests = [one.request for one in thoughts]
    return Verdicts(
        own=tuple(one.log_odds for one in thoughts),
        empty=tuple(verdicts(model, requests, [""] * len(requests), on_done)),
        other=tuple(verdicts(model, requests, others(thoughts, seed), on_done)),
    )


def area_figures(stem: str, thoughts: Sequence[Thought], scores: Sequence[float | None]) -> list[Figure]:
    """AUROC by group, `STEM_direct`, `STEM_lookalike`, `STEM_STYLE` and `STEM_styled` (mean over styles)."""
    asked = [one.asked for one in thoughts]
    missing = unscored_by_group(asked, scores)
    return [
        mean_auroc([a for a, _ in pairs], [b for _, b in pairs])
        .named(f"{stem}_{group}")
        .model_copy(update={"unscored": missing[group]})
        for group, pairs in cells(asked, scores).items()
    ]


def added_figures(thoughts: Sequence[Thought], found: Verdicts) -> list[Figure]:
    """`inside_auroc_KIND_GROUP` for own, empty and other thoughts."""
    return [figure for kind in KINDS for figure in area_figures(f"inside_auroc_{kind}", thoughts, found.of(kind))]
