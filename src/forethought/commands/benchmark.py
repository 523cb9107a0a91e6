"""`forethought benchmark`."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import column_overrides
from forethought.commands.terminal import console

if TYPE_CHECKING:
    from forethought.data.benchmarks.behaviors import Behavior, Benchmark

_SHOWN_BAD = 3
"""Malformed rows that are named one by one; the others are counted."""
_SAMPLES = 5
_WIDTH = 200
"""Longest sample, in characters."""
_LABELS = ("harmful", "harmless", "unlabelled")


def show_layouts() -> None:
    """Prints the layouts that ship, with the columns by which each is recognised."""
    from forethought.data.benchmarks.layout import layouts

    table = Table(caption="* where the file's name says so as well")
    table.add_column("layout", no_wrap=True)  # a name that is cut can't be typed
    for heading in ("what", "paper", "recognised by"):
        table.add_column(heading)
    for layout in layouts().values():
        signs = [", ".join(sign.columns) + ("*" if sign.named else "") for sign in layout.signatures]
        table.add_row(layout.name, layout.title, layout.paper, "\n".join(signs))
    console.print(table)


def benchmark(
    source: str,
    layout: str | None,
    columns: Sequence[str],
    harmful: bool | None,
    skip_bad: bool,
    limit: int | None,
    by: str,
    seed: int,
    show: bool,
) -> None:
    """Reads a benchmark and shows how it was understood, its counts, and a few redacted rows."""
    from forethought.data.benchmarks.behaviors import sample
    from forethought.data.benchmarks.load import load_benchmark

    read = load_benchmark(source, layout, column_overrides(columns), harmful, skip_bad)
    behaviors = list(read.behaviors) if limit is None else sample(read.behaviors, limit, seed, by)
    for line in read.columns:
        console.print(escape(line), highlight=False, soft_wrap=True)
    _show_notes(read, behaviors)
    console.print(_counts(behaviors, by))
    for behavior in sample(behaviors, _SAMPLES, seed, by):
        console.print(f"  {escape(_line(behavior, show))}", highlight=False)


def _show_notes(read: Benchmark, behaviors: Sequence[Behavior]) -> None:
    """How much was read, what is unlabelled or was left out, and the first rows that are malformed."""
    drawn = "" if len(behaviors) == len(read.behaviors) else f", {len(behaviors)} drawn"
    console.print(f"{len(read.behaviors)} behaviours{drawn}", highlight=False)
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
        console.print("; ".join(f"{count} {what}" for what, count in notes.items() if count), highlight=False)
    for place in read.malformed[:_SHOWN_BAD]:
        console.print(f"  {place}", highlight=False, markup=False, soft_wrap=True)


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
