"""What was asked for and how it came out, as a table at the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from forethought.evals.goals import Reached
from forethought.report.rows import interval

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
