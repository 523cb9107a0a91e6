"""The page of a look inside: one self-contained HTML file, harmful text redacted unless asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from forethought.evals.attacks.catalogue import DIRECT
from forethought.evals.inside.failures import NEAR, Table
from forethought.evals.inside.look import Inside
from forethought.evals.inside.sample import LOOKALIKE, STYLED, main_group
from forethought.evals.inside.swaps import Swap
from forethought.evals.inside.thoughts import Thought
from forethought.evals.metrics import Figure
from forethought.report.inside_plots import (
    AREAS,
    area_dots,
    failure_bars,
    group_title,
    layer_lines,
    swap_bars,
    table_title,
)
from forethought.report.redact import redact
from forethought.report.rows import interval

_MOST_EXAMPLES = 24
_SWAPS = (
    ("inside_follow_to_harmless", "Harmful request, harmless intent: verdict goes over to comply"),
    ("inside_shift_to_harmless", "Change of its log-odds, mean"),
    ("inside_control_harmful", "Control, another harmful intent: verdict changes sides"),
    ("inside_control_shift_harmful", "Change of its log-odds, mean"),
    ("inside_follow_to_harmful", "Harmless request, harmful intent: verdict goes over to refuse"),
    ("inside_shift_to_harmful", "Change of its log-odds, mean"),
    ("inside_control_harmless", "Control, another harmless intent: verdict changes sides"),
    ("inside_control_shift_harmless", "Change of its log-odds, mean"),
)


@dataclass(frozen=True)
class InsidePage:
    """What the page shows."""

    title: str
    inside: Inside
    settings: Sequence[tuple[str, str]] = ()
    show_harmful: bool = False


def groups_of_figures(figures: Sequence[Figure]) -> list[str]:
    """Groups with an AUROC of the model's verdict: direct, look-alikes, each style, and their mean last."""
    stem = f"{AREAS[0][0]}_"
    found = [one.name.removeprefix(stem) for one in figures if one.name.startswith(stem)]
    order = {DIRECT.name: 0, LOOKALIKE: 1, STYLED: 3}
    return sorted(found, key=lambda group: order.get(group, 2))


def swap_lines(figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """(what, figure as text) about swapped intents; none for a kind of swap that no two thoughts allowed."""
    by_name = {one.name: one for one in figures if one.n or one.unscored}
    return [(title, interval(by_name[name])) for name, title in _SWAPS if name in by_name]


def area_lines(figures: Sequence[Figure]) -> list[tuple[str, list[str]]]:
    """(group, AUROC of each verdict and probe as text)."""
    by_name = {one.name: one for one in figures}
    return [
        (group_title(group), [interval(by_name.get(f"{stem}_{group}")) for stem, *_ in AREAS])
        for group in groups_of_figures(figures)
    ]


def inside_plots(inside: Inside) -> dict[str, str]:
    """The plots by name, each as SVG; those that there is nothing to draw for are left out."""
    by_name = {one.name: one for one in inside.figures}
    groups, group = groups_of_figures(inside.figures), main_group([one.asked for one in inside.thoughts])
    drawn = {
        "swaps": swap_bars(by_name) if inside.swaps else "",
        "failures": failure_bars(inside.tables) if inside.tables else "",
        "layers": layer_lines(inside.probed, by_name, group) if inside.probed else "",
        "areas": area_dots(by_name, groups) if groups else "",
    }
    return {name: plot for name, plot in drawn.items() if plot}


def write_inside_page(path: Path, page: InsidePage, plots: Mapping[str, str]) -> None:
    """Writes the page beside `path`, then moves it into place. `plots` is what `inside_plots` drew."""
    file = resources.files("forethought").joinpath("report/templates/inside.html.j2")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        file.read_text(encoding="utf-8")
    )
    inside = page.inside
    content = template.render(
        title=page.title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        redacted=not page.show_harmful,
        swap_bars=plots.get("swaps", ""),
        swaps=swap_lines(inside.figures),
        n_swaps=len(inside.swaps),
        failure_bars=plots.get("failures", ""),
        tables=[_line(table) for table in inside.tables],
        near=f"{NEAR:.2f}",
        layers=plots.get("layers", ""),
        probed=[(one.position, one.weights, one.layer, f"{one.auroc_dev:.2f}") for one in inside.probed],
        dots=plots.get("areas", ""),
        headings=[title for *_, title in AREAS],
        areas=area_lines(inside.figures),
        missing=sorted(inside.missing.items()),
        without=sum(one.log_odds is None for one in inside.thoughts),
        n_thoughts=len(inside.thoughts),
        examples=[_example(swap, page.show_harmful) for swap in _examples(inside.swaps)],
        settings=page.settings,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


def _line(table: Table) -> tuple[str, list[int]]:
    cells = [table.both_right, table.intent_wrong, table.verdict_wrong, table.both_wrong, table.unscored]
    return table_title(table), cells


def _examples(swaps: Sequence[Swap]) -> list[Swap]:
    """Some swaps across sides, spread over all of them."""
    across = [swap for swap in swaps if swap.crosses]
    return across[:: max(1, len(across) // _MOST_EXAMPLES)][:_MOST_EXAMPLES]


def _example(swap: Swap, show_harmful: bool) -> dict[str, str]:
    """A swap as the page shows it: each text is redacted by the label of the request that it comes from."""
    borrower, lender = swap.borrower, swap.lender
    return {
        "label": "harmful" if borrower.request.harmful else "harmless",
        "style": group_title(borrower.asked.style),
        "request": _shown(borrower.request.text, borrower, show_harmful),
        "own": _shown(borrower.intent, borrower, show_harmful),
        "lent": _shown(lender.intent, lender, show_harmful),
        "before": _odds(borrower.log_odds),
        "after": _odds(swap.log_odds),
    }


def _shown(text: str, thought: Thought, show_harmful: bool) -> str:
    return text if show_harmful or thought.request.harmful is False else redact(text)


def _odds(value: float | None) -> str:
    return "no verdict" if value is None else f"{value:+.1f}"
