"""The terminal: lines, a bar for each long piece of work, questions about costs, and tables.

The one place that prints, apart from each command's own tables. Heavy libraries are imported where they are used, so
that --help stays quick.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich import box, progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.prompt import Confirm
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from forethought.cli.bars import drawn, written
from forethought.errors import ConfigError
from forethought.progress import Bar, Cost, Progress
from forethought.redaction import printable

if TYPE_CHECKING:
    from forethought.evaluation.compare import Comparison
    from forethought.metrics import Figure
    from forethought.report.gate import Gate


class PrintableConsole(Console):
    """Takes from all that it prints what would steer the terminal, whoever wrote it: rows, replies, names of files."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else Segment(printable(part.text), part.style)


console = PrintableConsole()
_SHOWN_BAD = 3
"""Malformed rows that are named one by one; the others are counted."""


def quiet() -> None:
    """Silences libraries that print bars and warnings of their own into ours.

    Those that are not imported yet are told by the environment: importing `datasets` takes a second, and chat has no
    use for it.
    """
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("accelerate", "lm_eval", "lm-eval"):
        logging.getLogger(name).setLevel(logging.ERROR)


def say(line: str, style: str | None = None) -> None:
    """One line as it is: never wrapped, its brackets no markup, its numbers not coloured."""
    console.print(escape(line), highlight=False, soft_wrap=True, style=style)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Something that moves, with the seconds, while there is nothing to show; gone when it is done."""
    if not console.is_terminal:
        yield
        return
    columns = progress.SpinnerColumn(), progress.TextColumn("{task.description}"), progress.TimeElapsedColumn()
    with progress.Progress(*columns, console=console, transient=True) as shown:
        shown.add_task(escape(f"{what} ..."), total=None)
        yield


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], whole: int = 0, **how: Any) -> None:
    """Prints a table of texts, whose brackets are no markup. The first `whole` columns are not wrapped; `how` is what
    rich's `Table` takes."""
    table = Table(**how)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place < whole, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in row))
    console.print(table)


_WORDS = 40
"""Characters of a column of words, which goes on below, that are enough where figures stand side by side."""


def show_figures(
    columns: Sequence[str],
    rows: Sequence[tuple[Sequence[str], str | None]],
    titles: int = 1,
    shown: Console = console,
    **how: Any,
) -> None:
    """Prints a table of figures as `interval` writes them: rows with their styles, whose first `titles` cells are
    words. Where the figures would not fit side by side, each interval stands below its figure."""
    told = [list(cells) for cells, _ in rows]
    needed = sum(min(width, _WORDS) if place < titles else width for place, width in enumerate(_widths(told)))
    if narrow := needed + 3 * len(columns) + 1 > shown.width:
        told = [[*cells[:titles], *map(_below, cells[titles:])] for cells in told]
        how |= {"box": box.SIMPLE_HEAD, "show_edge": False, "padding": 0, "leading": 1}
    table = Table(caption_justify="left", **how)
    for place, (column, width) in enumerate(zip(columns, _widths([*told, [""] * len(columns)]), strict=True)):
        least = width if place >= titles else None if narrow else min(width, _WORDS)
        table.add_column(column, justify="right" if place >= titles else "left", overflow="fold", min_width=least)
    for cells, (_, style) in zip(told, rows, strict=True):
        table.add_row(*(escape(cell) for cell in cells), style=style)
    shown.print(table)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The longest line of each column."""
    columns = itertools.zip_longest(*rows, fillvalue="")
    return [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]


def _below(figure: str) -> str:
    """A figure with its interval below it, as narrow as it can be: `0.30` over `0.00..0.90`."""
    return re.sub(r" \((-?[\d.]+) to (-?[\d.]+)\)", r"\n\1..\2", figure)


def show_notes(notes: Mapping[str, int], malformed: Sequence[str]) -> None:
    """What is there, where anything is, and the first malformed rows by name."""
    if any(notes.values()):
        say("; ".join(f"{count} {what}" for what, count in notes.items() if count))
    for where in malformed[:_SHOWN_BAD]:
        say(f"  {where}")


def show_gate(gate: Gate) -> None:
    """What a gate found and where it is written. Exits with 1 where something stops the build."""
    from forethought.report.tables import interval

    if gate.rates:
        rows = [(row.title, *map(interval, row.figures)) for row in gate.rates]
        show_table(("", *gate.systems), rows, box=box.SIMPLE_HEAD, show_edge=False)
    styles = {"kept": "green", "broken": "red", "unsure": "yellow"}
    for one in gate.findings:
        style = "red" if one in gate.failed else styles[one.outcome]
        console.print(
            f"[{style}]{one.outcome:6}[/{style}] {escape(f'{one.name}: {one.says}')}", highlight=False, soft_wrap=True
        )
    if gate.changes:
        for word, changed in (("Better", gate.better), ("Worse", gate.worse)):
            say(f"{word} beyond chance: {', '.join(one.name for one in changed) or 'nothing'}")
        say(f"Requests that changed: {gate.flipped()}")
    for note in gate.notes:
        say(note, "yellow")
    say(f"{gate}.", "bold")
    say(f"Page: {gate.page}")
    say(f"For a build: {gate.junit}")
    raise typer.Exit(int(bool(gate.failed)))


class Terminal(Progress):
    """Prints through rich, plain lines where there is no terminal, and asks whoever sits there."""

    def __init__(self, shown: Console | None = None, max_cost: float = 0.0, yes: bool = False) -> None:
        """`max_cost`: US dollars from which to ask; `yes`: every cost is agreed to."""
        super().__init__(max_cost)
        self.console, self._yes = shown or console, yes

    def say(self, line: Any) -> None:
        self.console.print(line, highlight=False, soft_wrap=isinstance(line, str))

    def mapping(self, name: str, mapping: Any) -> None:
        self.console.print(escape(f"{name}: {mapping}"), style="dim", highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, name: str) -> Iterator[Bar]:
        with (drawn if self.console.is_terminal else written)(self.console, name) as bar:
            yield bar

    def agree(self, cost: Cost) -> bool:
        """Shows what it will cost, and asks where that is over the limit. Raises ConfigError where nobody sits."""
        self.console.print(str(cost), highlight=False)
        if self._yes or cost.calls == 0 or (cost.cost is not None and cost.cost <= self.max_cost):
            return True
        if not sys.stdin.isatty():
            price = "a model of unknown price" if cost.cost is None else f"about ${cost.cost:.2f}"
            rule = f"may cost more than --max-cost {self.max_cost:g}"
            raise ConfigError(price, rule, "Give --yes, or a higher --max-cost (and --price-in, --price-out)")
        return Confirm.ask("Go on?", console=self.console, default=False)

    def table(self, figures: Sequence[Figure], systems: Sequence[str]) -> None:
        """The comparison: one line a figure, one column a system, 95 % intervals beside or below their figures."""
        from forethought.report.tables import TITLES, interval, table_rows

        show_figures(
            ("", *(TITLES.systems.get(system, system) for system in systems)),
            [((title, *map(interval, cells)), None) for title, cells in table_rows(figures, systems)],
            shown=self.console, caption="Shares of requests; 95 % intervals", box=box.SIMPLE_HEAD, show_edge=False,
        )  # fmt: skip

    def comparison(self, found: Comparison, require: bool = False) -> None:
        """The table and where all is written. Exits with 1 where too many answers could not be judged, and with
        `require` where the last system hardly refuses."""
        self.table(found.figures, found.systems)
        say(f"Report: {found.page}")
        say(f"Figures: {found.results}")
        if found.too_many_unscored:
            say(f"{found.unscored:.1%} of one system's answers could not be judged: see the page", "red")
        for weakness in found.weaknesses:
            say(f"{found.systems[-1]}: {weakness}", "red")
        if found.too_many_unscored or (require and found.weaknesses):
            raise typer.Exit(1)
