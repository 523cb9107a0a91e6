"""Youden's J by defence and style: a heat map whose cells are numbers, so that colour is only a help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forethought.evals.metrics import Figure
from forethought.report.sweep_figures import DefenceMeans, Mean, two_digits

_LEVELS = 4
"""Steps of colour from 0 to 1, and as many below."""


class HeatCell(NamedTuple):
    """One defence in one style."""

    text: str
    level: int | None
    """Colour: 0 to 4 for J from 0 to 1, negative below 0; None without a value."""
    told: bool
    """Whether the interval leaves 0 out."""
    title: str
    """Value, interval and number of answers."""


class HeatMap(NamedTuple):
    """Rows of cells under two groups of styles."""

    unseen: list[str]
    reasoning: list[str]
    rows: list[tuple[str, list[HeatCell]]]
    least: int
    most: int
    """Scored answers that a cell rests on, harmful and harmless together, over one seed: the fewest and the most."""
    without: list[str]
    """Styles in which no defence was measured on harmful and on harmless requests."""
    half: float
    """Half the width of the middle cell's interval; nan without intervals."""

    @property
    def styles(self) -> list[str]:
        return [*self.unseen, *self.reasoning]


def heat_map(means: Sequence[DefenceMeans], unseen: Sequence[str], reasoning: Sequence[str]) -> HeatMap | None:
    """The map of the styles and defences that have any J; None where there is none."""
    found = {style: [one.style_youden(style) for one in means] for style in dict.fromkeys([*unseen, *reasoning])}
    kept = {style: cells for style, cells in found.items() if any(cells)}
    if not kept:
        return None
    rows = []
    for place, one in enumerate(means):
        cells = [kept[style][place] for style in kept]
        if any(cells):
            rows.append((one.label, [_cell(cell) for cell in cells]))
    drawn = [cell for cells in kept.values() for cell in cells if cell is not None and cell.scored]
    counts = [(cell.figure.n or 0) // cell.seeds for cell in drawn]
    halves = sorted(half for cell in drawn if (half := _half(cell.figure)) is not None)
    return HeatMap(
        [style for style in kept if style in unseen],
        [style for style in kept if style not in unseen],
        rows,
        min(counts, default=0),
        max(counts, default=0),
        [style for style in found if style not in kept],
        halves[len(halves) // 2] if halves else float("nan"),
    )


def _cell(mean: Mean | None) -> HeatCell:
    if mean is None:
        return HeatCell("-", None, False, "not measured")
    figure = mean.figure
    if not mean.scored:
        return HeatCell("?", None, False, f"nothing scored, {figure.unscored} unscored")
    text = two_digits(figure.value)
    level = max(-_LEVELS, min(_LEVELS, round(figure.value * _LEVELS)))
    counted = f"{figure.n} answers" + (f", {figure.unscored} unscored" if figure.unscored else "")
    if figure.low is None or figure.high is None:
        return HeatCell(text, level, False, counted)
    told = figure.low > 0.0 or figure.high < 0.0
    return HeatCell(text, level, told, f"{two_digits(figure.low)} to {two_digits(figure.high)}, {counted}")


def _half(figure: Figure) -> float | None:
    return None if figure.low is None or figure.high is None else (figure.high - figure.low) / 2
