"""The plot of a ladder: what each rung gains over the one that all are set against, and over the one before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from forethought.evals.metrics import Figure
from forethought.report.rung import Rung, gain, sign_of
from forethought.report.theme import BEST, INK, LINE, ONE, SOFT, canvas_of

_PANELS = (("auroc_unseen", "AUROC, unseen styles"), ("youden_unseen", "Youden's J, unseen styles"))
_COLOURS = {1: ONE, 0: SOFT, -1: BEST}


def gains(rungs: Sequence[Rung], reference: str) -> tuple[Callable[[], Any], str] | None:
    """(what draws it, a text in its place); None where no rung has a gain to draw."""
    drawn = [one for one in rungs if any(_known(one.against.get(stem)) for stem, _ in _PANELS)]
    if not drawn:
        return None
    lines: list[tuple[str, Rung | None]] = []
    for part, members in groupby(drawn, key=lambda one: one.part):
        lines += [(part, None), *((one.defence, one) for one in members)]

    def draw() -> Any:
        canvas = canvas_of(0.24 * len(lines) + 1.1)
        axes: Any = canvas.subplots(1, 2, sharey=True)
        for axis, (stem, title) in zip(axes, _PANELS, strict=True):
            axis.axvline(0.0, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
            for place, (_, rung) in enumerate(lines):
                if rung is not None:
                    _marks(axis, place, rung, stem)
            axis.set_title(f"{title}: gain over {reference}", fontsize=10, loc="left")
            axis.grid(axis="y", color=LINE, linewidth=0.6)
            axis.set_axisbelow(True)
        axes[0].set_yticks(range(len(lines)), [name for name, _ in lines])
        for label, (_, rung) in zip(axes[0].get_yticklabels(), lines, strict=True):
            if rung is None:
                label.set(fontweight="bold", color=INK)
        axes[0].set_ylim(len(lines) - 0.4, -0.6)
        return canvas

    stem = _PANELS[0][0]
    told = "; ".join(f"{one.defence} {gain(one.against.get(stem))}" for one in drawn)
    return draw, f"Gain of {len(drawn)} rungs over {reference} in AUROC over unseen styles: {told}."


def _marks(axis: Any, place: int, rung: Rung, stem: str) -> None:
    """A dot with its interval for the gain over the reference, a hollow diamond for that over the rung before."""
    over = rung.against.get(stem)
    if over is not None and _known(over):
        colour = _COLOURS[sign_of(over)]
        ends = [[over.value - (over.value if over.low is None else over.low)],
                [(over.value if over.high is None else over.high) - over.value]]  # fmt: skip
        axis.errorbar(over.value, place, xerr=ends, fmt="o", markersize=5, color=colour, elinewidth=1.2, zorder=3)
    since = rung.gained.get(stem)
    if since is not None and _known(since):
        colour = _COLOURS[sign_of(since)]
        axis.plot(since.value, place, "D", markersize=5, markerfacecolor="none", markeredgecolor=colour, zorder=4)


def _known(figure: Figure | None) -> bool:
    return figure is not None and not math.isnan(figure.value)
