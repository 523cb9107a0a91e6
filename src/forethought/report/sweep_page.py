"""The page of a sweep: one self-contained HTML file with the defences side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from forethought.evals.goals import Reached
from forethought.report.rows import interval
from forethought.report.sweep_figures import (
    BASE,
    RANKED_BY,
    YARDSTICK,
    DefenceMeans,
    Difference,
    Mean,
    SweepRow,
    best,
    by_base,
    paired_to,
    short_count,
    to_best,
)
from forethought.report.sweep_heat import HeatMap, heat_map
from forethought.report.sweep_plots import ability, forest, not_drawn, trade_off
from forethought.report.sweep_table import COLUMNS, goal_lines, reasons, unscored

_MEASURES = ((RANKED_BY, "Youden's J, unseen styles"), ("auroc_unseen", "AUROC, unseen styles"))
_TITLES = {column.stem: column.long.rsplit(" (", 1)[0] for column in COLUMNS}


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
    forest: str
    trade_off: str
    trade_off_without: list[str]
    ability: str
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
    """Writes the page beside `path`, then moves it into place.

    `unseen` are the readable styles that no training has seen, `reasoning` the attacks on reasoning, both by name;
    `notes` are sentences that a reader has to know before trusting a number, `goals` what was asked for. Raises
    InputError where a run is there twice.
    """
    file = resources.files("forethought").joinpath("report/templates/sweep.html.j2")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        file.read_text(encoding="utf-8")
    )
    content = template.render(
        title=title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        headings=[column.long for column in COLUMNS],
        sections=[_section(base, means, unseen, reasoning) for base, means in by_base(rows).items()],
        unseen=list(unseen),
        notes=list(notes),
        goals=goal_lines(goals),
        undefended=BASE,
        yardstick=YARDSTICK,
    )
    part = path.with_name(path.name + ".part")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


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
