"""The page of an attack run: every attack on harmful and on harmless requests, and what the searches spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forethought.judges.known import KnownError
from forethought.measure.paired import Comparison
from forethought.policy import Policy, default_policy
from forethought.report.attack_figures import AttackReport, AttackResult, Group, SearchResult
from forethought.report.page import HARMFUL, HARMLESS, SERIES, Plot, Series, axes_of, dots, told, write_page
from forethought.report.tables import TITLES, not_run_lines, search_lines, sections
from forethought.report.transcripts import Side, write_transcripts

_APART: tuple[Group, ...] = ("seen", "unreadable")
_STYLES = ("-", "--", ":")


@dataclass(frozen=True)
class AttackPage:
    """What the page shows."""

    title: str
    report: AttackReport
    readability: str
    """How it was decided which styles the model reads."""
    searches: Sequence[SearchResult] = ()
    not_run: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By attack, how many requests by cause."""
    searches_not_run: Mapping[str, str] = field(default_factory=dict)
    compared: str = ""
    """Name of the model that this one is compared with."""
    differences: Sequence[Comparison] = ()
    warnings: Sequence[str] = ()
    """What a reader has to know before trusting a number; one sentence each, without its end mark."""
    settings: Sequence[tuple[str, str]] = ()
    judge: KnownError | None = None
    sides: Sequence[Side] = ()
    """Its attempts, and beside them those of the model that it is compared with."""
    policy: Policy = field(default_factory=default_policy)
    """Whose rules the answers name."""
    show_harmful: bool = False


def write_attack_page(path: Path, page: AttackPage) -> None:
    """Writes the page, whole or not at all."""
    report = page.report
    main = [result for result in report.results if result.group not in _APART]
    apart = [result for result in report.results if result.group in _APART]
    write_page(
        path,
        "attack",
        page.title,
        page=page,
        show_harmful=page.show_harmful,
        headings=TITLES.attack_columns,
        sections=sections(report),
        white_box=any(result.white_box for result in report.results),
        dots=attack_dots("attacks", main) if main else None,
        dots_apart=attack_dots("attacks-apart", apart) if apart else None,
        apart_titles=[TITLES.groups[group] for group in _APART if report.of(group)],
        search_headings=TITLES.search_columns,
        searches=search_lines(page.searches),
        curves=budget_curves(page.searches) if page.searches else None,
        not_run=not_run_lines(page.not_run, page.searches_not_run),
        transcripts=write_transcripts(path, page.sides, page.policy, page.show_harmful),
    )


def attack_dots(name: str, results: Sequence[AttackResult]) -> Plot:
    """A line an attack: success on harmful requests and harmless requests refused, with their intervals."""
    asr = [one.asr for one in results]
    series = [
        Series("attack success on harmful requests", HARMFUL, "o", asr),
        Series("harmless requests refused", HARMLESS, "s", [one.refused for one in results]),
    ]

    def draw() -> Any:
        canvas, axis = axes_of(0.34 * len(results) + 1.4)
        dots(axis, [_label(one) for one in results], series, 0.26)
        axis.set_xlim(-0.02, 1.02)
        canvas.legend(loc="outside upper left", ncols=2)
        return canvas

    titles = [one.title for one in results]
    alt = f"Attack success and harmless requests refused by attack. Attack success: {told(titles, asr)}."
    return Plot(name, alt, draw)


def _label(result: AttackResult) -> str:
    return result.title if len(result.title) <= 44 else result.title[:43] + "\u2026"


def budget_curves(results: Sequence[SearchResult]) -> Plot:
    """Attack success by the queries spent on a request, a line a method."""

    def draw() -> Any:
        canvas, axis = axes_of(3.8)
        for number, result in enumerate(results):
            points = [(point.budget, point.broken) for point in result.curve if point.broken.n]
            if not points:
                continue
            colour = SERIES[number % len(SERIES)]
            queries = [place for place, _ in points]
            style = _STYLES[number // len(SERIES) % len(_STYLES)]
            axis.plot(queries, [one.value for _, one in points], style, marker=".", color=colour, label=result.name)
            low = [one.value if one.low is None else one.low for _, one in points]
            high = [one.value if one.high is None else one.high for _, one in points]
            axis.fill_between(queries, low, high, color=colour, alpha=0.08, linewidth=0)
        axis.set_xscale("log")
        budgets = sorted({point.budget for result in results for point in result.curve})
        axis.set_xticks(budgets, [str(budget) for budget in budgets])
        axis.minorticks_off()
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("queries to the attacked model, a request")
        axis.set_ylabel("attack success")
        if axis.lines:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return canvas

    ends = told([one.name for one in results], [one.asr for one in results])
    return Plot("budgets", f"Attack success by the queries spent on a request. In the end: {ends}.", draw)
