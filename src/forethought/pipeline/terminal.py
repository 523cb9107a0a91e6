"""What a run prints: what was guessed, a bar for each long stage, and the table at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from forethought.evals.metrics import Figure
from forethought.report.rows import SYSTEM_TITLES, interval, table_rows

_TITLES, _INTERVAL = 16, 22
"""Columns of a terminal that titles need at least, and a figure with its interval beside it."""


class Bar:
    """One stage's progress bar; it appears with its total."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self._task: TaskID | None = None

    def total(self, total: int) -> None:
        """Shows the bar with so many steps."""
        self._task = self._progress.add_task(self._name, total=total, note="")

    def advance(self, steps: int) -> None:
        """So many steps more are done."""
        if self._task is not None:
            self._progress.advance(self._task, steps)

    def calls(self, state: Any) -> None:
        """Where a run of model calls stands (`engine.calls.Progress`): rate, cost and calls at once are shown."""
        if self._task is None:
            self.total(state.total)
        assert self._task is not None
        cost = "" if state.usage.cost is None else f", ${state.usage.cost:.2f}"
        note = f"{state.rate:.1f} rows/s, {state.usage.calls} calls{cost}, {state.concurrency} at once"
        self._progress.update(self._task, completed=state.done, note=note)

    def step(self, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """A training step is done; its last losses are shown."""
        if self._task is None:
            self.total(steps)
        assert self._task is not None
        note = " ".join(f"{key.removeprefix('loss_')} {value:.3f}" for key, value in losses.items())
        self._progress.update(self._task, completed=step, note=note)


class Terminal:
    """Prints through rich; falls back to plain lines where there is no terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def say(self, line: str) -> None:
        """One line about a stage."""
        self.console.print(line, highlight=False)

    def mapping(self, name: str, mapping: Any) -> None:
        """Which columns of a source were taken for what."""
        self.console.print(f"[dim]{name}: {mapping}[/dim]", highlight=False)

    @contextmanager
    def progress(self, name: str) -> Iterator[Bar]:
        """A bar that is removed when its stage is done; the stage's line takes its place."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Bar(progress, name)

    def table(self, figures: Sequence[Figure], systems: Sequence[str]) -> None:
        """The comparison: one line a figure, one column a system, 95 % intervals in brackets.

        Where the columns would not fit side by side, intervals stand below their figures.
        """
        narrow = self.console.width < _TITLES + _INTERVAL * len(systems)
        table = Table(
            caption="Shares of requests; 95 % intervals in brackets", caption_justify="left", box=box.SIMPLE_HEAD,
            show_edge=False, padding=0 if narrow else (0, 1), leading=1 if narrow else 0,
        )  # fmt: skip
        table.add_column("", max_width=_TITLES if narrow else None)  # titles wrap, so that figures need not
        for system in systems:
            table.add_column(SYSTEM_TITLES.get(system, system), justify="right", min_width=14 if narrow else 19)
        for title, cells in table_rows(figures, systems):
            texts = [interval(cell) for cell in cells]
            table.add_row(title, *(text.replace(" (", "\n(") if narrow else text for text in texts))
        self.console.print(table)
