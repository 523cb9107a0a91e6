"""The table of a ladder: a line a rung, with what it gains over the rung that all are set against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from forethought.evals.metrics import Figure
from forethought.records import Record
from forethought.report.sweep_means import two_digits


class Rung(Record):
    """One defence of a ladder, beside the one that all rungs are set against."""

    defence: str
    why: str = ""
    figures: Mapping[str, Figure] = {}
    """By name, without the defence's."""
    against: Mapping[str, Figure] = {}
    """By name: this rung minus the reference, on the same requests."""
    missing: str = ""
    """Why there is nothing."""


_COLUMNS = (
    ("auroc_unseen", "AUROC\nunseen"),
    ("auroc_direct", "AUROC\ndirect"),
    ("auroc_lookalike", "AUROC\nalike"),
    ("youden_unseen", "J\nunseen"),
    ("refused_ordinary", "FR\nordin"),
    ("rule_named_right", "rule\nright"),
)


def ladder_table(rungs: Sequence[Rung], reference: str) -> Table:
    """The table, the rungs in the order given."""
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption_justify="left", caption_style="dim",
        caption=f"Gain: AUROC over unseen styles minus that of {reference}, on the same requests, with its 95 %"
        " interval, not corrected for the number of rungs.",
    )  # fmt: skip
    table.add_column("rung", overflow="fold")
    for _, heading in _COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gain", no_wrap=True)
    table.add_column("what it changes", overflow="fold", style="dim")
    for rung in rungs:
        if rung.missing:
            table.add_row(rung.defence, *[""] * len(_COLUMNS), Text("missing", style="yellow"), rung.missing)
            continue
        cells = [_plain(rung.figures.get(name)) for name, _ in _COLUMNS]
        table.add_row(rung.defence, *cells, _gain(rung.against.get("auroc_unseen")), rung.why)
    return table


def _plain(figure: Figure | None) -> str:
    return "-" if figure is None or math.isnan(figure.value) else two_digits(figure.value)


def _gain(figure: Figure | None) -> Text:
    """A gain in green, a loss in red, where the interval excludes nothing at all."""
    if figure is None or math.isnan(figure.value):
        return Text("-")
    text = f"{figure.value:+.2f}"
    if figure.low is None or figure.high is None:
        return Text(text)
    style = "green" if figure.low > 0 else "red" if figure.high < 0 else ""
    return Text(f"{text} ({figure.low:+.2f} to {figure.high:+.2f})", style=style)
