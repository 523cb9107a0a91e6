"""What was asked for, set against what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from forethought.metrics import Figure
from forethought.records import Record

Outcome = Literal["met", "met, not shown", "missed, not shown", "missed", "not measured"]
"""`not shown`: the other outcome lies within the 95 % interval. Nothing is said of what has no number."""


class Goal(Record):
    """A bound for one figure."""

    figure: str
    """Its name among the results, such as `auroc_unseen_scot_best`."""
    least: float | None = None
    most: float | None = None
    of: str = ""
    """Name of a second figure that the bound is a multiple of: `most: 0.5` is then half of that."""
    why: str = Field(default="", max_length=120)
    """What it is for, in a few words; for tables."""

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.least is None) == (self.most is None):
            raise ValueError("a goal has either `least` or `most`")
        return self


class Reached(Record):
    """A goal and how it came out."""

    goal: Goal
    outcome: Outcome
    bound: float | None = None
    """In the figure's own unit; None where the figure that it rests on was not measured."""
    measured: Figure | None = None

    @property
    def asked(self) -> str:
        """The bound in words."""
        side, bound = ("at least", self.goal.least) if self.goal.least is not None else ("at most", self.goal.most)
        if not self.goal.of:
            return f"{side} {bound:g}"
        return f"{side} {bound:g} times {self.goal.of}" + ("" if self.bound is None else f" ({self.bound:.3g})")


def reached(goals: Sequence[Goal], figures: Sequence[Figure]) -> list[Reached]:
    """Each goal with its outcome, in order. A bound that rests on another figure takes that one's value as it is."""
    by_name = {figure.name: figure for figure in figures if not math.isnan(figure.value)}
    return [_reached(goal, by_name) for goal in goals]


def _reached(goal: Goal, figures: Mapping[str, Figure]) -> Reached:
    measured, other = figures.get(goal.figure), figures.get(goal.of)
    times = 1.0 if not goal.of else None if other is None else other.value
    if measured is None or times is None:
        return Reached(goal=goal, outcome="not measured", measured=measured)
    # As if every goal were a least one: what is asked for at most is turned round.
    sign = 1.0 if goal.least is not None else -1.0
    asked = goal.least if goal.least is not None else goal.most
    assert asked is not None  # a goal has one of them
    bound = asked * times
    met = sign * measured.value >= sign * bound
    ends = [sign * end for end in (measured.low, measured.high) if end is not None]
    open_ = bool(ends) and min(ends) < sign * bound <= max(ends)
    outcome: Outcome = ("met, not shown" if open_ else "met") if met else ("missed, not shown" if open_ else "missed")
    return Reached(goal=goal, outcome=outcome, bound=bound, measured=measured)
