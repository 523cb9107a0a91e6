"""The table of a ladder: a line a rung, with what it gains over the rung that all are set against."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forethought.evals.metrics import Figure
from forethought.report.rung import Rung, gain, sign_of
from forethought.report.sweep_means import two_digits

_COLUMNS = (
    ("auroc_unseen", "AUROC\nunseen"),
    ("auroc_direct", "AUROC\ndirect"),
    ("auroc_lookalike", "AUROC\nalike"),
    ("youden_unseen", "J\nunseen"),
    ("refused_ordinary", "FR\nordin"),
    ("rule_named_right", "rule\nright"),
)
_NARROW = ("auroc_unseen", "youden_unseen", "refused_ordinary")
_STYLES = {1: "green", 0: "", -1: "red"}
WIDE = 130
"""Columns of the terminal from which there is room for every figure and for what each rung changes."""


def ladder_table(rungs: Sequence[Rung], reference: str, width: int | None = None) -> Table:
    """The table, the rungs in the order given; those that are missing are told below it. `width` is the terminal's."""
    wide = (Console().width if width is None else width) >= WIDE
    columns = [(name, heading) for name, heading in _COLUMNS if wide or name in _NARROW]
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption_justify="left", caption_style="dim",
        caption=_caption(rungs, reference),
    )  # fmt: skip
    table.add_column("rung", overflow="fold")
    for _, heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gain", no_wrap=True)
    if wide:
        table.add_column("what it changes", overflow="fold", style="dim")
    for rung in rungs:
        if rung.missing:
            continue
        cells = [_plain(rung.figures.get(name)) for name, _ in columns]
        table.add_row(rung.defence, *cells, _gain(rung.against.get("auroc_unseen")), *([rung.why] if wide else []))
    return table


def _caption(rungs: Sequence[Rung], reference: str) -> str:
    """What the gain is, and the rungs that are missing by their reason."""
    reasons: dict[str, list[str]] = {}
    for rung in rungs:
        if rung.missing:
            reasons.setdefault(rung.missing, []).append(rung.defence)
    gained = (
        f"Gain: AUROC over unseen styles minus that of {reference}, on the same requests, with its 95 % interval, not"
        " corrected for the number of rungs."
    )
    return "\n".join([gained, *(f"Missing ({why}): {', '.join(names)}." for why, names in reasons.items())])


def _plain(figure: Figure | None) -> str:
    return "-" if figure is None or math.isnan(figure.value) else two_digits(figure.value)


def _gain(figure: Figure | None) -> Text:
    """A gain in green, a loss in red, where the interval excludes nothing at all."""
    return Text(gain(figure), style=_STYLES[sign_of(figure)] if figure is not None else "")
