"""`forethought benchmark`: how a benchmark is understood, its counts, and a few redacted rows."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from forethought.cli import options
from forethought.cli.terminal import console, say

if TYPE_CHECKING:
    from forethought.data.benchmarks.behaviors import Behavior, Benchmark

_SHOWN_BAD = 3
"""Malformed rows that are named one by one; the others are counted."""
_SAMPLES = 5
_WIDTH = 200
"""Longest sample, in characters."""
_LABELS = ("harmful", "harmless", "unlabelled")


def benchmark(
    file: Annotated[
        str | None,
        typer.Argument(help="File, folder, glob, wheel::member, pkg:NAME/path, hub:NAME@split. Left out: the layouts."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="A layout's name or YAML file, where it isn't recognised by its columns.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NOUN=NAME", help="Instead of a layout: column of text, messages, category, label, ..."),
    ] = None,
    harmful: Annotated[
        bool | None,
        typer.Option("--harmful/--harmless", help="Label of rows of which the benchmark says nothing."),
    ] = None,
    skip_bad: options.SkipBad = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Draw so many, strata in proportion.")] = None,
    by: Annotated[str, typer.Option(help="Strata: category, attack or a tag; several joined by commas.")] = "category",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    show: options.ShowHarmful = False,
) -> None:
    """Shows how a benchmark is understood: its layout, what is counted in which group, a few redacted rows.

    Examples:

      forethought benchmark harmbench_behaviors_text_all.csv

      forethought benchmark my_benchmark.csv --column text=ask --column category=area --harmful
    """
    if file is None:
        _show_layouts()
        return
    from forethought.data.benchmarks.behaviors import sample
    from forethought.data.benchmarks.load import load_benchmark

    read = load_benchmark(file, layout, options.column_overrides(column), harmful, skip_bad)
    behaviors = list(read.behaviors) if limit is None else sample(read.behaviors, limit, seed, by)
    for line in read.columns:
        say(line)
    _show_notes(read, behaviors)
    console.print(_counts(behaviors, by))
    for behavior in sample(behaviors, _SAMPLES, seed, by):
        console.print(f"  {escape(_line(behavior, show))}", highlight=False)


def _show_layouts() -> None:
    """The layouts that ship, with the columns by which each is recognised."""
    from forethought.data.benchmarks.layout import layouts

    table = Table(caption="* where the file's name says so as well")
    table.add_column("layout", no_wrap=True)  # a name that is cut can't be typed
    for heading in ("what", "paper", "recognised by"):
        table.add_column(heading)
    for layout in layouts().values():
        signs = [", ".join(sign.columns) + ("*" if sign.named else "") for sign in layout.signatures]
        table.add_row(layout.name, layout.title, layout.paper, "\n".join(signs))
    console.print(table)


def _show_notes(read: Benchmark, behaviors: Sequence[Behavior]) -> None:
    """How much was read, what is unlabelled or was left out, and the first rows that are malformed."""
    drawn = "" if len(behaviors) == len(read.behaviors) else f", {len(behaviors)} drawn"
    say(f"{len(read.behaviors)} behaviours{drawn}")
    notes = {
        "unlabelled": read.by_label[None],
        "with a context": sum(bool(one.context) for one in read.behaviors),
        "with a reference": sum(one.reference is not None for one in read.behaviors),
        "repeated and kept once": read.repeated,
        "with another row's id, renamed": read.renamed,
        "without text left out": read.without_text,
        "malformed rows left out": len(read.malformed),
    }
    if any(notes.values()):
        say("; ".join(f"{count} {what}" for what, count in notes.items() if count))
    for place in read.malformed[:_SHOWN_BAD]:
        say(f"  {place}")


def _counts(behaviors: Sequence[Behavior], by: str) -> Table:
    """Counts by label, a row for each group of `by` and kind."""
    names = [name.strip() for name in by.split(",") if name.strip()] or ["category"]
    cells = Counter((*(one.says(name) for name in ("kind", *names)), one.says("label")) for one in behaviors)
    table = Table("kind", *names, *_LABELS)
    for group in dict.fromkeys(key[:-1] for key in sorted(cells)):
        counts = [cells[(*group, label)] for label in _LABELS]
        table.add_row(*(escape(part) or "-" for part in group), *(str(count) if count else "" for count in counts))
    return table


def _line(behavior: Behavior, show: bool) -> str:
    """One behaviour on a line; what isn't known to be harmless is redacted unless asked."""
    from forethought.report.page import redact

    told = behavior.asked if show or behavior.request.harmful is False else redact(behavior.asked)
    return f"{behavior.id} {behavior.says('label')}: {textwrap.shorten(told, _WIDTH, placeholder=' ...')}"
