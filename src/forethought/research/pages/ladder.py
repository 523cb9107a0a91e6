"""A ladder: its rungs, their table at the terminal, their plot, and the page that has both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forethought.metrics import Figure
from forethought.records import Record
from forethought.report.page import BEST, INK, ONE, SOFT, write_page, write_whole
from forethought.report.plots import Plot, axes_of, errors
from forethought.report.tables import interval
from forethought.research.pages.sweep_figures import gain, sign_of, two_digits

PAGE, PLOT = "report.html", "gains.svg"
_FIGURES = (
    ("auroc_unseen", "AUROC, unseen styles"),
    ("youden_unseen", "Youden's J, unseen styles"),
    ("auroc_lookalike", "AUROC, look-alikes"),
    ("refused_ordinary", "Ordinary requests refused"),
    ("rule_named_right", "Rule named right"),
    ("reasoning_tokens_harmless", "Tokens of thought, harmless"),
)
_GAINS = (("auroc_unseen", "AUROC"), ("youden_unseen", "J"))
_PANELS = (("auroc_unseen", "AUROC, unseen styles"), ("youden_unseen", "Youden's J, unseen styles"))
_COLOURS = {1: ONE, 0: SOFT, -1: BEST}
_TABLE = (
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


class Rung(Record):
    """One defence of a ladder, beside the one that all rungs are set against and the one that it comes after."""

    defence: str
    part: str = ""
    """The sweep that it stands in first."""
    why: str = ""
    before: str = ""
    """The rung whose changes it takes over or whose weights it shares; empty where that is the one that all are set
    against, or none."""
    figures: Mapping[str, Figure] = {}
    """By name, without the defence's."""
    against: Mapping[str, Figure] = {}
    """By name: this rung minus the reference, on the same requests."""
    gained: Mapping[str, Figure] = {}
    """By name: this rung minus `before`."""
    missing: str = ""
    """Why there is nothing."""


def ladder_table(rungs: Sequence[Rung], reference: str, width: int | None = None) -> Table:
    """The table, the rungs in the order given; those that are missing are told below it. `width` is the terminal's."""
    wide = (Console().width if width is None else width) >= WIDE
    columns = [(name, heading) for name, heading in _TABLE if wide or name in _NARROW]
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


def gains(rungs: Sequence[Rung], reference: str) -> Plot | None:
    """What each rung gains over the reference, and over the rung before; None where no rung has a gain to draw."""
    drawn = [one for one in rungs if any(_known(one.against.get(stem)) for stem, _ in _PANELS)]
    if not drawn:
        return None
    lines: list[tuple[str, Rung | None]] = []
    for part, members in groupby(drawn, key=lambda one: one.part):
        lines += [(part, None), *((one.defence, one) for one in members)]

    def draw() -> Any:
        canvas, axes = axes_of(0.24 * len(lines) + 1.1, len(_PANELS))
        for axis, (stem, title) in zip(axes, _PANELS, strict=True):
            axis.axvline(0.0, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
            for place, (_, rung) in enumerate(lines):
                if rung is not None:
                    _marks(axis, place, rung, stem)
            axis.set_title(f"{title}: gain over {reference}")
            axis.grid(axis="y")
        axes[0].set_yticks(range(len(lines)), [name for name, _ in lines])
        for label, (_, rung) in zip(axes[0].get_yticklabels(), lines, strict=True):
            if rung is None:
                label.set(fontweight="bold", color=INK)
        axes[0].set_ylim(len(lines) - 0.4, -0.6)
        return canvas

    stem = _PANELS[0][0]
    told = "; ".join(f"{one.defence} {gain(one.against.get(stem))}" for one in drawn)
    return Plot("ladder", f"Gain of {len(drawn)} rungs over {reference} in AUROC over unseen styles: {told}.", draw)


def _marks(axis: Any, place: int, rung: Rung, stem: str) -> None:
    """A dot with its interval for the gain over the reference, a hollow diamond for that over the rung before."""
    over = rung.against.get(stem)
    if over is not None and _known(over):
        colour = _COLOURS[sign_of(over)]
        axis.errorbar(
            over.value, place, xerr=errors([over]), fmt="o", markersize=5, color=colour, elinewidth=1.2, zorder=3
        )
    since = rung.gained.get(stem)
    if since is not None and _known(since):
        colour = _COLOURS[sign_of(since)]
        axis.plot(since.value, place, "D", markersize=5, markerfacecolor="none", markeredgecolor=colour, zorder=4)


def _known(figure: Figure | None) -> bool:
    return figure is not None and not math.isnan(figure.value)


def write_ladder_page(
    folder: Path, title: str, rungs: Sequence[Rung], reference: str, pages: Sequence[tuple[str, str]]
) -> Path:
    """Writes page and plot into a folder and returns the page. `pages` are (name, link) of each sweep's own."""
    drawn = gains(rungs, reference)
    if drawn is not None:
        write_whole(folder / PLOT, drawn.alone())
    else:
        (folder / PLOT).unlink(missing_ok=True)  # an earlier run's
    there = [one for one in rungs if not one.missing]
    write_page(
        folder / PAGE,
        "ladder",
        title,
        reference=reference,
        gains=drawn,
        headings=[
            "rung",
            *(f"{heading}: gain over {reference}" for _, heading in _GAINS),
            *(f"{heading}: gain over the rung before" for _, heading in _GAINS),
            *(heading for _, heading in _FIGURES),
        ],
        parts=[(name, [_line(one) for one in members]) for name, members in groupby(there, key=lambda one: one.part)],
        missing=[(one.defence, one.missing) for one in rungs if one.missing],
        pages=list(pages),
    )
    return folder / PAGE


def _line(rung: Rung) -> dict[str, object]:
    over = [rung.against.get(stem) for stem, _ in _GAINS]
    since = [rung.gained.get(stem) for stem, _ in _GAINS]
    return {
        "rung": rung.defence,
        "why": rung.why,
        "before": rung.before,
        "cells": [interval(rung.figures.get(stem)) for stem, _ in _FIGURES],
        "over": [(gain(one), one is not None and sign_of(one) != 0) for one in over],
        "since": [(gain(one), one is not None and sign_of(one) != 0) for one in since],
    }
