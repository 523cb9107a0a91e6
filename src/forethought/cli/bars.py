"""Bars of long work: drawn at a terminal, and written line by line where the output is a file or a build's log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich import progress
from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.text import Text

from forethought.progress import Bar

_EVERY = 60.0
"""Seconds between two lines where nothing can be drawn: work that is done sooner writes none."""


@contextmanager
def drawn(console: Console, name: str) -> Iterator[Bar]:
    """A bar that is gone when the work is done."""
    columns = (
        progress.SpinnerColumn(), progress.TextColumn("{task.description}"), _Column(bar_width=24),
        progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), _TimeLeft(),
        progress.TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    with progress.Progress(*columns, console=console, transient=True) as shown:
        yield _Drawn(shown, name)


@contextmanager
def written(console: Console, name: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Bar]:
    """A line a minute, at most, while steps are done. `clock`: seconds."""
    yield _Written(console, name, clock)


class _Column(progress.BarColumn):
    """A bar that moves before its first step is done, too: rows of a batch end together, and late."""

    def render(self, task: progress.Task) -> ProgressBar:
        bar = super().render(task)
        bar.pulse = not task.completed
        return bar


class _TimeLeft(progress.ProgressColumn):
    """What is left of the time, at the rate so far; nothing before anything is done."""

    def render(self, task: progress.Task) -> Text:
        if not task.completed or not task.total or task.elapsed is None or task.finished:
            return Text("")
        return Text(f"{_left(task.elapsed, task.completed, task.total)} left", style="progress.remaining")


class _Drawn(Bar):
    """A progress bar; it appears with its total."""

    def __init__(self, drawn: progress.Progress, name: str) -> None:
        self._drawn, self._name = drawn, name
        self._task: progress.TaskID | None = None

    def total(self, total: int | None) -> None:
        self._task = self._drawn.add_task(self._name, total=total, note="")

    def advance(self, steps: int, note: str = "") -> None:
        if self._task is not None:
            self._drawn.update(self._task, advance=steps, note=note)

    def show(self, done: int, total: int, note: str = "") -> None:
        if self._task is None:
            self.total(total)
        assert self._task is not None
        self._drawn.update(self._task, completed=done, total=total, note=note)


class _Written(Bar):
    """Lines in place of a bar. Nothing is written between steps: no thread runs beside the work."""

    def __init__(self, console: Console, name: str, clock: Callable[[], float]) -> None:
        self._console, self._name, self._clock = console, name, clock
        self._start = self._told = clock()
        self._done, self._total = 0, 0

    def total(self, total: int | None) -> None:
        self._total = total or 0

    def advance(self, steps: int, note: str = "") -> None:
        self.show(self._done + steps, self._total, note)

    def show(self, done: int, total: int, note: str = "") -> None:
        self._done, self._total = done, total
        now = self._clock()
        if now - self._told < _EVERY or done >= total > 0:
            return
        self._told = now
        parts = [
            f"{self._name}: {done:,} of {total:,}" if total else f"{self._name}: {done:,}",
            _time(now - self._start),
        ]
        if done and total:
            parts.append(f"{_left(now - self._start, done, total)} left")
        self._console.print(escape(", ".join(part for part in (*parts, note) if part)), highlight=False, soft_wrap=True)


def _left(elapsed: float, done: float, total: float) -> str:
    """What is left of the time, at the rate so far."""
    return _time(elapsed * (total - done) / done)


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
