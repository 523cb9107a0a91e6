"""Writes what a finished sweep found: rows, log, figures with what made them, and a page with which of the defences'
differences can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forethought.metrics import Figure
from forethought.records import write_jsonl
from forethought.report.page import write_page
from forethought.report.results import write_results
from forethought.report.tables import interval
from forethought.research.cell import SweepRun
from forethought.research.config import Sweep
from forethought.research.figures import Split, contrast_figures, missing_of, sweep_figures
from forethought.research.goals import Reached, reached
from forethought.research.log import write_log
from forethought.research.plots import ability, forest, not_drawn, trade_off
from forethought.research.rows import (
    RANKED_BY,
    YARDSTICK,
    DefenceMeans,
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
from forethought.research.table import goal_lines, reasons, unscored
from forethought.research.titles import TITLES

ROWS, PAGE = "rows.jsonl", "report.html"
_MEASURES = ((RANKED_BY, "Youden's J, unseen styles"), ("auroc_unseen", "AUROC, unseen styles"))
_TITLES = {column.stem: column.long.rsplit(" (", 1)[0] for column in TITLES.columns}
_LEVELS = 4
"""Steps of colour in the heat map from 0 to 1, and as many below."""


def write_sweep(
    sweep: Sweep,
    run: SweepRun,
    rows: Sequence[SweepRow],
    split: Split,
    folder: Path,
    results: Path,
    inputs: Mapping[str, str],
) -> list[Reached]:
    """Writes rows, log and page into `folder` and the figures to `results`; returns what came of the sweep's goals."""
    figures = sweep_figures(rows)
    figures += contrast_figures(sweep, figures)
    figures.append(Figure(name="minutes", value=run.seconds / 60, unit="minutes"))
    if run.peak_gib:  # none where every cell comes from a log
        figures.append(Figure(name="peak_gib", value=run.peak_gib, unit="GiB"))
    write_jsonl(folder / ROWS, rows)
    write_log(folder, run.cells, sweep.evaluate.attacks)
    write_results(results, list(sweep.seeds), inputs, figures, missing_of(rows))
    goals = reached(sweep.goals, figures)
    write_sweep_page(folder / PAGE, sweep.name, rows, split.unseen, split.reasoning, _notes(sweep, split), goals)
    return goals


def _notes(sweep: Sweep, split: Split) -> list[str]:
    """What a reader has to know beside the numbers."""
    unseen = ", ".join(split.unseen) or "none"
    said = [
        f"Means are over the styles that no defence was trained on and the base model can read: {unseen}.",
        f"Each style: {sweep.evaluate.n_styled} harmful and as many harmless requests.",
    ]
    if split.apart:
        apart = ", ".join(split.apart)
        said.append(f"Reported apart, as seen in training or not understood by the base model: {apart}.")
    if split.reasoning_seen:
        seen = ", ".join(split.reasoning_seen)
        said.append(f"Attacks on reasoning that a defence was trained on, reported apart: {seen}.")
    return said


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
        headings=[column.long for column in TITLES.columns],
        sections=[_section(base, means, unseen, reasoning) for base, means in by_base(rows).items()],
        unseen=list(unseen),
        notes=list(notes),
        goals=goal_lines(goals),
        yardstick=YARDSTICK,
        gain=gain,
    )


def _section(
    base: str, means: Sequence[DefenceMeans], unseen: Sequence[str], reasoning: Sequence[str]
) -> dict[str, Any]:
    """All about one base model."""
    blocks = [_to_best(means, stem, title) for stem, title in _MEASURES]
    trained = [one for one in means if one.tokens]
    return {
        "base": base,
        "lines": [_line(one) for one in means],
        "forest": forest(means),
        "trade_off": trade_off(means),
        "trade_off_without": not_drawn(means, "refused_styled_harmless", "asr_unseen"),
        "ability": ability(means),
        "ability_without": not_drawn(means, RANKED_BY, "capability"),
        "heat": heat_map(means, unseen, reasoning),
        "to_best": [block for block in blocks if block is not None],
        "paired": [(one.label, _TITLES.get(one.name, one.name), one) for one in paired_to(means)],
        "missing": reasons(means),
        "notes": [(one.label, note) for one in means for note in one.notes],
        "unscored": unscored(means),
        "once": [one.label for one in trained if len(one.runs) == 1],
        "several": [one.label for one in trained if len(one.runs) > 1],
    }


def _line(one: DefenceMeans) -> dict[str, Any]:
    """A defence in the table."""
    tokens, minutes = one.tokens, one.minutes
    return {
        "label": one.label,
        "title": one.title,
        "cells": [_cell(one.mean(column.stem)) for column in TITLES.columns],
        "training": ("-" if tokens is None else short_count(tokens), "-" if minutes is None else f"{minutes:.1f}"),
        "seeds": len(one.runs),
    }


def _cell(mean: Mean | None) -> tuple[str, str]:
    """Value with interval, without the count of unscored answers, which stands below the table; and the range."""
    if mean is None:
        return "-", ""
    if not mean.scored:
        return "not scored", ""
    text = interval(mean.figure.model_copy(update={"unscored": 0}))
    return text, f"seeds {mean.least:.2f} to {mean.most:.2f}" if mean.seeds > 1 else ""


def _to_best(means: Sequence[DefenceMeans], stem: str, title: str) -> dict[str, Any] | None:
    """How far the others are from the best in one measure, and which can't be told from it."""
    first, lines = best(means, stem), to_best(means, stem)
    if first is None or not lines:
        return None
    mean = first.mean(stem)
    value = interval(mean.figure) if mean is not None else ""
    alike = [one.label for one in lines if not one.told_apart]
    return {"title": title, "best": first.label, "value": value, "lines": lines, "open": alike}


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
            rows.append((one.label, [_heat_cell(cell) for cell in cells]))
    drawn = [cell for cells in kept.values() for cell in cells if cell is not None and cell.scored]
    counts = [(cell.figure.n or 0) // cell.seeds for cell in drawn]
    ends = [(cell.figure.low, cell.figure.high) for cell in drawn]
    halves = sorted((high - low) / 2 for low, high in ends if low is not None and high is not None)
    return HeatMap(
        unseen=[style for style in kept if style in unseen],
        reasoning=[style for style in kept if style not in unseen],
        rows=rows,
        least=min(counts, default=0),
        most=max(counts, default=0),
        without=[style for style in found if style not in kept],
        half=halves[len(halves) // 2] if halves else float("nan"),
    )


def _heat_cell(mean: Mean | None) -> HeatCell:
    if mean is None:
        return HeatCell("-", None, False, "not measured")
    figure = mean.figure
    if not mean.scored:
        return HeatCell("?", None, False, f"nothing scored, {figure.unscored} unscored")
    level = max(-_LEVELS, min(_LEVELS, round(figure.value * _LEVELS)))
    counted = f"{figure.n} answers" + (f", {figure.unscored} unscored" if figure.unscored else "")
    if figure.low is not None and figure.high is not None:
        counted = f"{two_digits(figure.low)} to {two_digits(figure.high)}, {counted}"
    return HeatCell(two_digits(figure.value), level, sign_of(figure) != 0, counted)
