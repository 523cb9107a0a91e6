"""What `forethought attack` prints: the plan, where a run stands, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from forethought.commands.terminal import console
from forethought.engine.conversation import Able, Conversation, Failed, OnReply, Respondent, Response

if TYPE_CHECKING:
    from forethought.engine.pricing import Price
    from forethought.evals.attacks.adaptive.base import Method
    from forethought.evals.attacks.base import Attack
    from forethought.report.attack_figures import AttackReport, SearchResult


class Meter:
    """A respondent that counts what passes through it, for the bar."""

    def __init__(self, inner: Respondent, price: Price | None) -> None:
        self._inner, self._price = inner, price
        self.name = inner.name
        self.replies = self.failed = self.tokens_in = self.tokens_out = 0
        self._start = time.monotonic()

    @property
    def able(self) -> Able:
        """What the model behind it can do."""
        return self._inner.able

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """The model's own replies."""
        if not self.replies:
            self._start = time.monotonic()

        def told(place: int, reply: Response | Failed) -> None:
            self._count(reply)
            if on_reply is not None:
                on_reply(place, reply)

        return self._inner.reply(conversations, max_answer_tokens, told)

    @property
    def note(self) -> str:
        """Replies a second, and what they cost where that is known."""
        from forethought.engine.pricing import cost_of

        seconds = max(time.monotonic() - self._start, 0.001)
        cost = cost_of(self.tokens_in, self.tokens_out, 0, self._price)
        parts = [f"{self.replies / seconds:.1f}/s"] if self.replies else []
        parts += [f"${cost:.2f}"] if cost is not None else []
        return ", ".join([*parts, *([f"{self.failed} failed"] if self.failed else [])])

    def _count(self, reply: Response | Failed) -> None:
        self.replies += 1
        if isinstance(reply, Failed):
            self.failed += 1
            return
        self.tokens_in += reply.prompt_tokens
        self.tokens_out += reply.reasoning_tokens + reply.answer_tokens


class Bar:
    """One progress bar."""

    def __init__(self, progress: Progress, name: str, meter: Meter | None) -> None:
        self._progress, self._meter = progress, meter
        self._task = progress.add_task(name, total=None, note="")

    def total(self, total: int) -> None:
        """So many steps there are."""
        self._progress.update(self._task, total=total)

    def advance(self, steps: int) -> None:
        """So many more are done."""
        note = self._meter.note if self._meter is not None else ""
        self._progress.update(self._task, advance=steps, note=note)

    def show(self, done: int, total: int, note: str) -> None:
        """Where the work stands, as a whole."""
        self._progress.update(self._task, completed=done, total=total, note=note)


@contextmanager
def bar(name: str, meter: Meter | None = None) -> Iterator[Bar]:
    """A bar that is removed when its work is done."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, name, meter)


def say(line: str, style: str | None = None) -> None:
    """One line, brackets as they are."""
    console.print(escape(line), highlight=False, soft_wrap=True, style=style)


def show_attacks() -> None:
    """Every attack and search that can be named."""
    from forethought.evals.attacks.adaptive.catalogue import all_searches
    from forethought.evals.attacks.catalogue import all_attacks

    table = Table(Column("name", no_wrap=True), Column("kind", no_wrap=True), "title", "needs")
    for attack in all_attacks().values():
        table.add_row(attack.name, attack.kind, escape(attack.title), ", ".join(attack.needs))
    for search in all_searches().values():
        table.add_row(search.name, "search", escape(search.title), ", ".join(search.needs))
    console.print(table)


def show_plan(
    attacks: Sequence[Attack],
    methods: Sequence[Method],
    causes: Mapping[str, str],
    counts: tuple[int, int],
    goals: tuple[int, int],
    seen: Sequence[str],
) -> None:
    """What will be run on how many requests, and what won't, with the cause."""
    from forethought.evals.attacks.catalogue import seen_in_training

    table = Table(title="Plan", title_justify="left")
    for heading in ("attack", "kind", "harmful", "harmless", ""):
        table.add_column(heading)
    for attack in attacks:
        cause = causes.get(attack.name, "")
        note = "seen in training" if seen_in_training(attack, seen) else ""
        numbers = ("-", "-") if cause else tuple(map(str, counts))
        table.add_row(
            escape(attack.title), attack.kind, *numbers, escape(f"not run: {cause}" if cause else note),
            style="dim" if cause else None,
        )  # fmt: skip
    for method in methods:
        cause = causes.get(method.name, "")
        numbers = ("-", "-") if cause else tuple(map(str, goals))
        table.add_row(
            escape(method.name), "search", *numbers, escape(f"not run: {cause}" if cause else ""),
            style="dim" if cause else None,
        )  # fmt: skip
    console.print(table)


def show_summary(
    report: AttackReport,
    searches: Sequence[SearchResult],
    not_run: Mapping[str, Mapping[str, int]],
    searches_not_run: Mapping[str, str],
) -> None:
    """The table at the end."""
    from forethought.report.attack_table import HEADINGS, SEARCH_HEADINGS, not_run_lines, search_lines, sections

    parts = sections(report)
    told = [
        place for place in range(1, len(HEADINGS)) if any(_tells(line[place]) for _, lines in parts for line in lines)
    ]
    table = Table(caption="* needs more than a chat window. 95 % intervals in brackets", caption_justify="left")
    table.add_column(HEADINGS[0], min_width=22)
    for place in told:
        table.add_column(HEADINGS[place], justify="right")
    for title, lines in parts:
        table.add_row(f"[bold]{title}")
        for line in lines:
            cells = [line[0], *(line[place] for place in told)]
            table.add_row(*map(escape, cells), style="bold" if line[0] == "mean" else None)
    if report.results:
        console.print(table)
    if searches:
        table = Table(*SEARCH_HEADINGS)
        for line in search_lines(searches):
            table.add_row(*(escape(cell) for cell in line))
        console.print(table)
    for name, why in not_run_lines(not_run, searches_not_run):
        say(f"Not run: {name}: {why}", "dim")


def _tells(cell: str) -> bool:
    """Whether a cell holds a number: a column without one takes room from the others."""
    return cell[:1].isdigit() or cell.startswith("-0") or cell.startswith("-1")


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
