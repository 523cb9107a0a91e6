"""`forethought benchmark`: how a benchmark is understood."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from forethought.cli import options
from forethought.cli.terminal import console, say, show_notes, show_table

if TYPE_CHECKING:
    from forethought.data.behaviors import Behavior

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
    columns: Annotated[
        list[str] | None, options.column("text, messages, category, label, ..., instead of a layout")
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

      forethought benchmark mine.csv --column text=ask --column category=area
    """
    if file is None:
        _show_layouts()
        return
    from forethought.data.behaviors import sample
    from forethought.data.benchmarks import load_benchmark

    read = load_benchmark(file, layout, options.column_overrides(columns), harmful, skip_bad)
    behaviors = list(read.behaviors) if limit is None else sample(read.behaviors, limit, seed, by)
    for line in read.columns:
        say(line)
    drawn = "" if len(behaviors) == len(read.behaviors) else f", {len(behaviors)} drawn"
    say(f"{len(read.behaviors)} behaviours{drawn}")
    show_notes(
        {
            "unlabelled": sum(one.request.harmful is None for one in read.behaviors),
            "with a context": sum(bool(one.context) for one in read.behaviors),
            "with a reference": sum(one.reference is not None for one in read.behaviors),
            "repeated and kept once": read.repeated,
            "with another row's id, renamed": read.renamed,
            "without text left out": read.without_text,
            "malformed rows left out": len(read.malformed),
        },
        read.malformed,
    )
    _show_counts(behaviors, by)
    for behavior in sample(behaviors, _SAMPLES, seed, by):
        console.print(f"  {escape(_line(behavior, show))}", highlight=False)


def _show_layouts() -> None:
    """The layouts that ship, with the columns by which each is recognised."""
    from forethought.data.benchmarks import layouts

    rows = []
    for layout in layouts().values():
        signs = [", ".join(sign.columns) + ("*" if sign.named else "") for sign in layout.signatures]
        rows.append((layout.name, layout.title, layout.paper, "\n".join(signs)))
    caption = "* where the file's name says so as well"
    show_table(("layout", "what", "paper", "recognised by"), rows, whole=1, caption=caption)


def _show_counts(behaviors: Sequence[Behavior], by: str) -> None:
    """Counts by label, a row for each group of `by` and kind."""
    names = [name.strip() for name in by.split(",") if name.strip()] or ["category"]
    cells = Counter((*(one.says(name) for name in ("kind", *names)), one.says("label")) for one in behaviors)
    rows = [
        [*(part or "-" for part in group), *(str(cells[(*group, label)] or "") for label in _LABELS)]
        for group in dict.fromkeys(key[:-1] for key in sorted(cells))
    ]
    show_table(("kind", *names, *_LABELS), rows)


def _line(behavior: Behavior, show: bool) -> str:
    """One behaviour on a line; what isn't known to be harmless is redacted unless asked."""
    from forethought.redaction import shown

    told = shown(behavior.asked, behavior.request.harmful, show)
    return f"{behavior.id} {behavior.says('label')}: {textwrap.shorten(told, _WIDTH, placeholder=' ...')}"
