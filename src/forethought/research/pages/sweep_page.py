"""The page of a sweep: the defences side by side, and which of their differences can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from forethought.metrics import Figure
from forethought.report.page import write_page
from forethought.report.plots import Plot
from forethought.report.tables import interval
from forethought.research.goals import Reached
from forethought.research.pages.sweep_figures import (
    RANKED_BY,
    YARDSTICK,
    DefenceMeans,
    Difference,
    Mean,
    SweepRow,
    best,
    by_base,
    gain,
    paired_to,
    short_count,
    sign_of,
    to_best,
    two_digits,
)
from forethought.research.pages.sweep_plots import ability, forest, not_drawn, trade_off
from forethought.research.pages.sweep_table import COLUMNS, goal_lines, reasons, unscored

_MEASURES = ((RANKED_BY, "Youden's J, unseen styles"), ("auroc_unseen", "AUROC, unseen styles"))
_TITLES = {column.stem: column.long.rsplit(" (", 1)[0] for column in COLUMNS}
_LEVELS = 4
"""Steps of colour in the heat map from 0 to 1, and as many below."""


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


@dataclass(frozen=True)
class Line:
    """A defence in the table."""

    label: str
    title: str
    cells: list[tuple[str, str]]
    """(value with interval, range over seeds or nothing), a pair a column."""
    training: tuple[str, str]
    """Tokens and minutes."""
    seeds: int


@dataclass(frozen=True)
class ToBest:
    """How far the others are from the best in one measure."""

    title: str
    best: str
    value: str
    lines: list[Difference]

    @property
    def open(self) -> list[str]:
        """The defences that can't be told from the best."""
        return [one.label for one in self.lines if not one.told_apart]


@dataclass(frozen=True)
class Section:
    """All about one base model."""

    base: str
    lines: list[Line]
    forest: Plot | None
    trade_off: Plot | None
    trade_off_without: list[str]
    ability: Plot | None
    ability_without: list[str]
    heat: HeatMap | None
    to_best: list[ToBest]
    paired: list[tuple[str, str, Difference]]
    """(defence, what is compared, difference) against the yardstick, on the same requests."""
    missing: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    unscored: list[str]
    once: list[str]
    """Defences that were trained with one seed."""
    several: list[str]
    """Defences that were trained with more."""


def write_sweep_page(
    path: Path,
    title: str,
    rows: Sequence[SweepRow],
    unseen: Sequence[str],
    reasoning: Sequence[str],
    notes: Sequence[str] = (),
    goals: Sequence[Reached] = (),
) -> None:
    """Writes the page, whole or not at all.

    `unseen` are the readable styles that no training has seen, `reasoning` the attacks on reasoning, both by name;
    `notes` are sentences that a reader has to know before trusting a number, `goals` what was asked for. Raises
    InputError where a run is there twice.
    """
    write_page(
        path,
        "sweep",
        title,
        headings=[column.long for column in COLUMNS],
        sections=[_section(base, means, unseen, reasoning) for base, means in by_base(rows).items()],
        unseen=list(unseen),
        notes=list(notes),
        goals=goal_lines(goals),
        yardstick=YARDSTICK,
        gain=gain,
    )


def _section(base: str, means: Sequence[DefenceMeans], unseen: Sequence[str], reasoning: Sequence[str]) -> Section:
    blocks = [_to_best(means, stem, title) for stem, title in _MEASURES]
    return Section(
        base=base,
        lines=[_line(one) for one in means],
        forest=forest(means),
        trade_off=trade_off(means),
        trade_off_without=not_drawn(means, "refused_styled_harmless", "asr_unseen"),
        ability=ability(means),
        ability_without=not_drawn(means, RANKED_BY, "capability"),
        heat=heat_map(means, unseen, reasoning),
        to_best=[block for block in blocks if block is not None],
        paired=[(one.label, _TITLES.get(one.name, one.name), one) for one in paired_to(means)],
        missing=reasons(means),
        notes=[(one.label, note) for one in means for note in one.notes],
        unscored=unscored(means),
        once=[one.label for one in means if one.tokens and len(one.runs) == 1],
        several=[one.label for one in means if one.tokens and len(one.runs) > 1],
    )


def _line(one: DefenceMeans) -> Line:
    tokens, minutes = one.tokens, one.minutes
    return Line(
        label=one.label,
        title=one.title,
        cells=[_cell(one.mean(column.stem)) for column in COLUMNS],
        training=("-" if tokens is None else short_count(tokens), "-" if minutes is None else f"{minutes:.1f}"),
        seeds=len(one.runs),
    )


def _cell(mean: Mean | None) -> tuple[str, str]:
    """Value with interval, without the count of unscored answers, which stands below the table; and the range."""
    if mean is None:
        return "-", ""
    if not mean.scored:
        return "not scored", ""
    text = interval(mean.figure.model_copy(update={"unscored": 0}))
    return text, f"seeds {mean.least:.2f} to {mean.most:.2f}" if mean.seeds > 1 else ""


def _to_best(means: Sequence[DefenceMeans], stem: str, title: str) -> ToBest | None:
    first = best(means, stem)
    lines = to_best(means, stem)
    if first is None or not lines:
        return None
    mean = first.mean(stem)
    return ToBest(title, first.label, interval(mean.figure) if mean is not None else "", lines)


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
            rows.append((one.label, [_heat_cell(cell) for cell in cells]))
    drawn = [cell for cells in kept.values() for cell in cells if cell is not None and cell.scored]
    counts = [(cell.figure.n or 0) // cell.seeds for cell in drawn]
    halves = sorted(half for cell in drawn if (half := _half_width(cell.figure)) is not None)
    return HeatMap(
        [style for style in kept if style in unseen],
        [style for style in kept if style not in unseen],
        rows,
        min(counts, default=0),
        max(counts, default=0),
        [style for style in found if style not in kept],
        halves[len(halves) // 2] if halves else float("nan"),
    )


def _heat_cell(mean: Mean | None) -> HeatCell:
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
    return HeatCell(
        text, level, sign_of(figure) != 0, f"{two_digits(figure.low)} to {two_digits(figure.high)}, {counted}"
    )


def _half_width(figure: Figure) -> float | None:
    return None if figure.low is None or figure.high is None else (figure.high - figure.low) / 2
