"""The report: one self-contained HTML page, harmful text redacted unless asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment

from forethought.engine.local import Settings
from forethought.evals.attacks.catalogue import parse_attack
from forethought.evals.cells import by_cell, too_many_unscored
from forethought.evals.comprehension import readability_warnings
from forethought.evals.curves import operating_curve
from forethought.evals.metrics import Figure
from forethought.evals.paired import Comparison
from forethought.evals.respond import Judged
from forethought.report.figures import (
    BASE,
    OURS,
    attack_sets,
    judge_error,
    measured_comprehension,
    paired_comparisons,
    score_pairs,
)
from forethought.report.plots import attack_bars, operating_curves, score_histogram
from forethought.report.redact import redact
from forethought.report.rows import SYSTEM_TITLES, interval, reasoning_rows, table_rows

_EXAMPLES = 8


def write_page(
    path: Path,
    title: str,
    attacks: Sequence[str],
    judged: Mapping[str, Sequence[Judged]],
    figures: Sequence[Figure],
    settings: Settings,
    show_harmful: bool = False,
) -> None:
    """Writes the page beside `path`, then moves it into place."""
    systems = list(judged)
    measured = measured_comprehension(judged[BASE], attacks) if BASE in judged else {}
    unseen, apart = attack_sets(attacks, settings.seen_operators)
    scored = [one for one in judged.get(OURS, []) if one.response and one.response.log_odds is not None]

    def odds(harmful: bool) -> list[float]:
        return [
            float(o.response.log_odds or 0.0) for o in scored if o.response and o.attempt.request.harmful is harmful
        ]

    text = resources.files("forethought").joinpath("report/templates/page.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    content = page.render(
        title=title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        systems=[SYSTEM_TITLES.get(system, system) for system in systems],
        rows=[(name, [interval(cell) for cell in cells]) for name, cells in table_rows(figures, systems)],
        bars=attack_bars(figures, ["direct", *unseen], systems),
        bars_apart=attack_bars(figures, apart, systems) if apart else "",
        apart=[parse_attack(name).title for name in apart],
        histogram=score_histogram(odds(True), odds(False), settings.threshold) if scored else "",
        curves=_curves(judged, unseen, settings.threshold) if scored else "",
        differences=_differences(judged, unseen),
        reasoning=[(name, [interval(cell) for cell in cells]) for name, cells in reasoning_rows(figures, systems)],
        readable=_readable(measured, attacks),
        warnings=_warnings(judged, measured),
        threshold=settings.threshold,
        threshold_note=settings.threshold_note,
        policy=settings.policy,
        seen=settings.seen_operators,
        unscored={system: sum(one.refused is None for one in rows) for system, rows in judged.items()},
        examples=_examples(judged, show_harmful),
        redacted=not show_harmful,
        judge=judge_error(),
    )
    part = path.with_name(path.name + ".part")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


def _curves(judged: Mapping[str, Sequence[Judged]], unseen: Sequence[str], threshold: float) -> str:
    """The operating curves of our defence: direct requests, unseen styles, look-alikes against their twins."""
    cells = by_cell(judged[OURS])
    pairs = {
        "direct": [("direct", "ordinary")],
        "unseen styles": [(f"{attack}:harmful", f"{attack}:harmless") for attack in unseen],
        "look-alikes": [("twin", "lookalike")],
    }
    curves = {title: operating_curve(score_pairs(cells, couples)) for title, couples in pairs.items()}
    drawn = {title: points for title, points in curves.items() if points}
    return operating_curves(drawn, threshold) if drawn else ""


def _differences(judged: Mapping[str, Sequence[Judged]], unseen: Sequence[str]) -> list[tuple[str, list[Comparison]]]:
    compared = paired_comparisons(judged, unseen)
    ours = SYSTEM_TITLES.get(OURS, OURS)
    return [(f"{ours} minus {SYSTEM_TITLES.get(name, name)}", rows) for name, rows in compared.items() if rows]


def _readable(measured: Mapping[str, Figure], attacks: Sequence[str]) -> list[tuple[str, str, str]]:
    """(style, share answered on topic, what its flag says), undisguised first."""
    return [
        (parse_attack(style).title, interval(measured[style]), "yes" if parse_attack(style).readable else "no")
        for style in ("direct", *attacks)
        if style in measured
    ]


def _warnings(judged: Mapping[str, Sequence[Judged]], measured: Mapping[str, Figure]) -> list[str]:
    """What a reader has to know before trusting a number: cells with many unscored answers, flags that are wrong."""
    lines = [
        f"{SYSTEM_TITLES.get(system, system)}: {part:.0%} of the answers in {cell} are unscored"
        for system, rows in judged.items()
        for cell, part in too_many_unscored(rows).items()
    ]
    return [*lines, *readability_warnings(measured)]


def _examples(judged: Mapping[str, Sequence[Judged]], show_harmful: bool) -> list[dict[str, Any]]:
    """A few attempts of every kind, side by side."""
    by_id = {system: {one.attempt.id: one for one in rows} for system, rows in judged.items()}
    first = next(iter(judged.values()), [])
    picked: list[Judged] = []
    for kind, attack in (
        ("harmful", "direct"), ("harmful", ""), ("lookalike", "direct"), ("ordinary", "direct"), ("ordinary", ""),
    ):  # fmt: skip
        fitting = [
            one for one in first
            if one.attempt.request.kind == kind and (one.attempt.attack == "direct") == (attack == "direct")
        ]  # fmt: skip
        picked += fitting[:: max(1, len(fitting) // _EXAMPLES)][:_EXAMPLES]
    return [
        {
            "kind": one.attempt.request.kind,
            "attack": parse_attack(one.attempt.attack).title,
            "request": _shown(one.attempt.request.text, bool(one.attempt.request.harmful), show_harmful),
            "sides": [_side(system, by_id[system].get(one.attempt.id), show_harmful) for system in judged],
        }
        for one in picked
    ]


def _side(system: str, one: Judged | None, show_harmful: bool) -> dict[str, Any]:
    if one is None or one.response is None:
        return {
            "system": SYSTEM_TITLES.get(system, system),
            "outcome": "unscored",
            "answer": "",
            "thought": "",
            "cause": one.cause if one else "not asked",
        }
    # A harmful request's thought quotes it, and an answer that did not refuse may hold harm.
    harmful = bool(one.attempt.request.harmful)
    outcome = "unscored" if one.refused is None else "refused" if one.refused else "answered"
    return {
        "system": SYSTEM_TITLES.get(system, system),
        "outcome": outcome,
        "answer": _shown(one.response.answer, harmful, show_harmful),
        "thought": _shown(one.response.reasoning_text, harmful, show_harmful),
        "rules": ", ".join(one.response.rules_named),
        "cause": one.cause,
    }


def _shown(text: str, harmful: bool, show_harmful: bool) -> str:
    return text if show_harmful or not harmful else redact(text)
