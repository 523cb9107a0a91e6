"""Plots as SVG: inside a page, in its colours and without a network, or as files of their own."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib

from forethought.metrics import Figure
from forethought.report.page import INK, LIGHT, LINE, SOFT

matplotlib.use("svg")
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "figure.facecolor": "none", "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.axisbelow": True,
    "grid.color": LINE, "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 9.0,
    "font.size": 9.0, "axes.labelsize": 9.0,
}  # fmt: skip


class Plot(NamedTuple):
    """A plot that can be drawn for a page or for a file."""

    name: str
    """Goes into the ids inside the SVG: no two plots of a page may share one."""
    alt: str
    """A text in its place for those who can't see it."""
    draw: Callable[[], Any]
    """Makes the figure, by `axes_of`."""

    def inline(self) -> str:
        """For inside a page, in the colours of the page around it."""
        text = self._svg({})
        for name, colour in LIGHT.items():
            text = text.replace(colour, f"var(--{name})")
        return text

    def alone(self) -> str:
        """As a file of its own: dark on white wherever it is shown, and its words drawn, since fonts differ."""
        return self._svg({"figure.facecolor": "white", "svg.fonttype": "path"})

    def _svg(self, settings: Mapping[str, Any]) -> str:
        whole: Any = {**_STYLE, "svg.hashsalt": self.name, **settings}
        out = io.StringIO()
        with matplotlib.rc_context(whole):
            self.draw().savefig(out, format="svg", metadata={"Date": None})
        text = out.getvalue()
        return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{escape(self.alt)}" ', 1)


class Series(NamedTuple):
    """What is drawn in one colour and with one mark, a figure a row or None."""

    label: str
    colour: str
    mark: str
    figures: Sequence[Figure | None]


def axes_of(height: float, panels: int = 1) -> tuple[Any, Any]:
    """A figure of that height in inches and ten wide, and its axes: several of them share the vertical one."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, height), layout="constrained")
    return canvas, canvas.subplots(1, panels, sharey=True)


def errors(figures: Sequence[Figure]) -> list[list[float]]:
    """Distances to the ends of the intervals; none where an end is missing."""
    below = [0.0 if one.low is None else max(0.0, one.value - one.low) for one in figures]
    above = [0.0 if one.high is None else max(0.0, one.high - one.value) for one in figures]
    return [below, above]


def dots(axis: Any, rows: Sequence[str], series: Sequence[Series], apart: float) -> None:
    """Dots with their intervals, a row below the other; the series of a row lie that far apart, a row being 1."""
    for number, one in enumerate(series):
        middle = apart * (number - (len(series) - 1) / 2)
        drawn = [(row + middle, figure) for row, figure in enumerate(one.figures) if figure is not None and figure.n]
        if drawn:
            axis.errorbar(
                [figure.value for _, figure in drawn], [place for place, _ in drawn],
                xerr=errors([figure for _, figure in drawn]), fmt=one.mark, markersize=5, color=one.colour,
                elinewidth=1, alpha=0.9, label=one.label,
            )  # fmt: skip
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="y")


def told(names: Sequence[str], figures: Sequence[Figure | None]) -> str:
    """Names with their values, for the text in a plot's place."""
    pairs = zip(names, figures, strict=True)
    return "; ".join(f"{name} {figure.value:.2f}" for name, figure in pairs if figure is not None and figure.n)
