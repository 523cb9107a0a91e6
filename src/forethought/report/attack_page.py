"""The page of an attack run: one self-contained HTML file, harmful text redacted unless asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from jinja2 import Environment

from forethought.evals.attacks.catalogue import parse_attack
from forethought.evals.judges.known import KnownError
from forethought.evals.paired import Comparison
from forethought.evals.respond import Judged
from forethought.report.attack_figures import AttackReport, SearchResult
from forethought.report.attack_plots import attack_dots, budget_curves
from forethought.report.attack_table import (
    GROUP_TITLES,
    HEADINGS,
    SEARCH_HEADINGS,
    not_run_lines,
    search_lines,
    sections,
)
from forethought.report.redact import redact

_MOST_EXAMPLES = 60
_APART = ("seen", "unreadable")


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
    examples: Sequence[Judged] = ()
    show_harmful: bool = False


def write_attack_page(path: Path, page: AttackPage) -> None:
    """Writes the page beside `path`, then moves it into place."""
    file = resources.files("forethought").joinpath("report/templates/attack.html.j2")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        file.read_text(encoding="utf-8")
    )
    report = page.report
    main = [result for result in report.results if result.group not in _APART]
    apart = [result for result in report.results if result.group in _APART]
    content = template.render(
        title=page.title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        headings=HEADINGS,
        sections=sections(report),
        white_box=any(result.white_box for result in report.results),
        dots=attack_dots(main) if main else "",
        dots_apart=attack_dots(apart) if apart else "",
        apart_titles=[GROUP_TITLES[group] for group in ("seen", "unreadable") if report.of(group)],
        readability=page.readability,
        search_headings=SEARCH_HEADINGS,
        searches=search_lines(page.searches),
        curves=budget_curves(page.searches) if page.searches else "",
        not_run=not_run_lines(page.not_run, page.searches_not_run),
        compared=page.compared,
        differences=page.differences,
        warnings=page.warnings,
        settings=page.settings,
        judge=page.judge,
        examples=[_example(one, page.show_harmful) for one in page.examples[:_MOST_EXAMPLES]],
        redacted=not page.show_harmful,
    )
    part = path.with_name(path.name + ".part")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


def _example(one: Judged, show_harmful: bool) -> dict[str, str]:
    """An attempt as the page shows it. What isn't known to be harmless is redacted, its thought and answer as well."""
    hidden = one.attempt.request.harmful is not False and not show_harmful

    def shown(text: str) -> str:
        return redact(text) if hidden else text

    answered = "got through" if one.attempt.request.harmful else "answered"
    stopped = "stopped" if one.attempt.request.harmful else "refused"
    return {
        "attack": parse_attack(one.attempt.attack).title,
        "label": "harmless" if one.attempt.request.harmful is False else "harmful",
        "outcome": "unscored" if one.refused is None else stopped if one.refused else answered,
        "request": shown(one.attempt.request.text),
        "prefill": shown(one.attempt.prefill),
        "thought": shown(one.response.reasoning_text) if one.response is not None else "",
        "answer": shown(one.response.answer) if one.response is not None else "",
        "cause": one.cause,
    }
