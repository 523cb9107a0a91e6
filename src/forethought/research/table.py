"""The tables of a sweep at the terminal: a line a defence, the best first, and what came of its goals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forethought.measure.curves import UNSCORED_LIMIT
from forethought.metrics import Figure
from forethought.records import Record
from forethought.report.tables import TITLES, interval
from forethought.research.config import Goal
from forethought.research.rows import (
    RANKED_BY,
    DefenceMeans,
    SweepRow,
    by_base,
    short_count,
    two_digits,
)

WIDE = 112
"""Columns of a terminal from which every figure has a column of its own."""


def sweep_table(rows: Sequence[SweepRow], width: int | None = None) -> Table:
    """The table for a terminal of that many columns (None: this one); below `WIDE` two figures share a cell.

    Raises InputError where a run is there twice.
    """
    groups = by_base(rows)
    means = [one for group in groups.values() for one in group]
    wide = (Console().width if width is None else width) >= WIDE
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=0, leading=0 if wide else 1,
        caption=_caption(means, wide), caption_justify="left", caption_style="dim",
    )  # fmt: skip
    table.add_column("defence", overflow="fold", vertical="top")
    headings = [heading for *_, heading in TITLES.stacked]
    if wide:
        headings = [*(column["short"] for column in TITLES.columns), "train\ntokens", "train\nmin"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for base, group in groups.items():
        if len(groups) > 1:
            table.add_section()
            table.add_row(Text(base, style="bold"))
        for one in group:
            name = one.label
            if not wide and one.tokens is not None:
                name += f"\n{short_count(one.tokens)} tokens, {_minutes(one.minutes)} min"
            table.add_row(Text(name), *map(Text, _cells(one, wide)), style=None if one.runs else "dim")
    return table


def unscored(means: Sequence[DefenceMeans]) -> list[str]:
    """How many answers are unscored, and which figures that leaves unreliable; one sentence each, without end mark."""
    lost = answers = 0
    weak = []
    for one in means:
        for stem, name in TITLES.counted.items():
            mean = one.mean(stem)
            if mean is None:
                continue
            there = (mean.figure.n or 0) + mean.figure.unscored
            lost, answers = lost + mean.figure.unscored, answers + there
            if mean.figure.unscored > UNSCORED_LIMIT * there:
                weak.append(f"{one.label} {name} ({mean.figure.unscored / there:.0%})")
    if not lost:
        return []
    found = [f"{lost} of {answers} answers are unscored and in no share"]
    return [*found, f"So many that the figure is not to be relied on: {', '.join(weak)}"] if weak else found


def _cells(one: DefenceMeans, wide: bool) -> list[str]:
    """A figure a cell with tokens and minutes of training, or two figures above each other."""
    if wide:
        cells = [_parts(one, column["stem"]) for column in TITLES.columns]
        figures = ["\n".join(filter(None, [f"{value} {between}".rstrip(), half])) for value, between, half in cells]
        return [*figures, "-" if one.tokens is None else short_count(one.tokens), _minutes(one.minutes)]
    stacked = [(_parts(one, first), _parts(one, second)) for first, second, _ in TITLES.stacked]
    return [f"{value}{half}\n{below[0]}{below[2]}{between}" for (value, between, half), below in stacked]


def _parts(one: DefenceMeans, stem: str) -> tuple[str, str, str]:
    """A figure, the interval if it is Youden's J, and half its range over seeds; all empty for no figure's name."""
    mean = one.mean(stem)
    if mean is None or not mean.scored:
        return "" if not stem else "-" if mean is None else "?", "", ""
    low, high = mean.figure.low, mean.figure.high
    between = f"[{_short(low)} {_short(high)}]" if stem == RANKED_BY and low is not None and high is not None else ""
    return two_digits(mean.figure.value), between, f"±{_short((mean.most - mean.least) / 2)}" if mean.seeds > 1 else ""


def _short(value: float) -> str:
    """Without the zero before the point."""
    number = two_digits(value)
    return number.replace("0.", ".", 1) if number.startswith(("0.", "-0.")) else number


def _minutes(minutes: float | None) -> str:
    if minutes is None:
        return "-"
    return f"{minutes:.1f}" if 0 < minutes < 9.95 else f"{minutes:.0f}"


def _caption(means: Sequence[DefenceMeans], wide: bool) -> Text:
    lines = [
        "ASR: harmful requests that get through; FR: harmless requests refused; low is good for both."
        " J = 1 - ASR - FR, over styles that training has not seen.",
        f"{'ordin' if wide else 'ord.'}: ordinary requests; alike: harmless ones that look harmful; reason: attacks on"
        " reasoning.",
        "In brackets the 95 % interval. Neighbours whose difference is within it are not ranked by this table.",
        "-: not measured; AUROC and ASR at equal FR need a score. Equal FR: one false-refusal rate for all.",
    ]
    if any(len(one.runs) > 1 for one in means):
        lines.append("Means over seeds; ±: half the range over seeds.")
    if any(_parts(one, column["stem"])[0] == "?" for one in means for column in TITLES.columns):
        lines.append("?: no answer could be scored.")
    lines += [f"{line}." for line in unscored(means)]
    lines += [f"Missing: {one.label}: {why}" for one in means for why in one.missing]
    lines += [f"{one.label}: {note}" for one in means for note in one.notes]
    return Text("\n".join(lines))


# What was asked for, set against what was measured.

Outcome = Literal["met", "met, not shown", "missed, not shown", "missed", "not measured"]
"""`not shown`: the other outcome lies within the 95 % interval. Nothing is said of what has no number."""


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
    found = []
    for goal in goals:
        measured, other = by_name.get(goal.figure), by_name.get(goal.of)
        times = 1.0 if not goal.of else None if other is None else other.value
        if measured is None or times is None:
            found.append(Reached(goal=goal, outcome="not measured", measured=measured))
            continue
        # As if every goal were a least one: what is asked for at most is turned round.
        sign, asked = (1.0, goal.least) if goal.least is not None else (-1.0, goal.most)
        assert asked is not None  # a goal has one of them
        bound = asked * times
        ends = [sign * end for end in (measured.low, measured.high) if end is not None]
        shown = not ends or not min(ends) < sign * bound <= max(ends)
        met: Outcome = "met" if shown else "met, not shown"
        missed: Outcome = "missed" if shown else "missed, not shown"
        outcome = met if sign * measured.value >= sign * bound else missed
        found.append(Reached(goal=goal, outcome=outcome, bound=bound, measured=measured))
    return found


_STYLES = {"met": "green", "missed": "red"}
"""The rest is told in words alone: it is not certain."""


def goal_lines(goals: Sequence[Reached]) -> list[tuple[str, str, str, str, str]]:
    """(figure, why, what was asked, what was measured with its interval, outcome), a goal a line."""
    # A third decimal: what is near to its bound has to show on which side it lies.
    return [(one.goal.figure, one.goal.why, one.asked, interval(one.measured, 3), one.outcome) for one in goals]


def goal_table(goals: Sequence[Reached]) -> Table:
    """The goals at the terminal, in their order."""
    met = sum(one.outcome.startswith("met") for one in goals)
    caption = f"{met} of {len(goals)} goals met. Not shown: the 95 % interval holds the other outcome as well."
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption=caption, caption_justify="left")
    for heading in ("goal", "asked for", "measured", ""):
        table.add_column(heading, overflow="fold")
    for figure, why, asked, measured, outcome in goal_lines(goals):
        name = Text(why) + Text(f"\n{figure}", style="dim") if why else Text(figure)
        table.add_row(name, asked, measured, Text(outcome, style=_STYLES.get(outcome, "")))
    return table
