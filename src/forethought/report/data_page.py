"""The page of a built set: one HTML file that opens without a network, in light and dark, redacted unless asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment

from forethought.report.data_summary import Count, DataSummary, Lengths

_BARS = 40
"""Longest list of bars; the rest is summed, and drawn as no bar: it would dwarf the others."""


def write_data_page(path: Path, summary: DataSummary) -> None:
    """Writes the page beside `path`, then moves it into place."""
    text = resources.files("forethought").joinpath("report/templates/data.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    content = page.render(
        title=summary.facts.get("name") or "Built set",
        summary=summary,
        tiles=_tiles(summary),
        panels=[
            ("Rules broken", bars(summary.rules)),
            ("Sources", bars(summary.sources)),
            ("Kinds", bars(summary.kinds)),
            ("Styles", bars(summary.operators)),
        ],
        histograms=[(name, lengths, columns(lengths)) for name, lengths in summary.lengths.items()],
        dropped=_single(summary.dropped),
        lost=_single(summary.facts.get("lost") or {}),
        removed=_single(summary.facts.get("removed") or {}),
        evaluation=_evaluation(summary.facts),
        made=_made(summary.facts),
        redacted=any(sample.redacted for sample in summary.samples),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(content, encoding="utf-8")
    os.replace(part, path)


def bars(counts: Sequence[Count]) -> list[dict[str, Any]]:
    """Bars with their two parts in percent of the longest; beyond the first, the rest is one line without a bar."""
    most = max((count.rows for count in counts), default=0) or 1
    drawn = [
        {
            "label": count.label,
            "harmful": count.harmful,
            "harmless": count.harmless,
            "rows": count.rows,
            "harmful_percent": round(100 * count.harmful / most, 2),
            "harmless_percent": round(100 * count.harmless / most, 2),
        }
        for count in counts[:_BARS]
    ]
    if rest := counts[_BARS:]:
        harmful, harmless = sum(count.harmful for count in rest), sum(count.harmless for count in rest)
        parts = {"label": f"{len(rest)} others", "harmful": harmful, "harmless": harmless, "rows": harmful + harmless}
        drawn.append(parts | {"harmful_percent": 0.0, "harmless_percent": 0.0})
    return drawn


def columns(lengths: Lengths) -> list[dict[str, Any]]:
    """Columns of a histogram with their height in percent of the highest."""
    most = max(count for _, count in lengths.bins)
    return [{"label": name, "count": count, "percent": round(100 * count / most, 2)} for name, count in lengths.bins]


def _tiles(summary: DataSummary) -> list[tuple[str, str]]:
    share = summary.verified_share
    styled = f"{summary.styled / summary.rows:.0%}" if summary.rows else "-"
    tiles = [
        ("rows", f"{summary.rows:,}"),
        ("harmful, refused", f"{summary.harmful:,}"),
        ("harmless, answered", f"{summary.harmless:,}"),
        ("restyled", styled),
        ("passed verification", "-" if share is None else f"{share:.1%}"),
        ("reasoning alone", f"{summary.thought_only:,}"),
    ]
    if summary.cut:
        tiles.append(("answer cut", f"{summary.cut:,}"))
    return tiles


def _single(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    most = max(counts.values(), default=0) or 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"label": name, "rows": count, "percent": round(100 * count / most, 2)} for name, count in ordered]


def _evaluation(facts: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    found = facts.get("overlaps") or {}
    return [(name, size, found.get(name, 0)) for name, size in (facts.get("evaluation") or {}).items()]


def _made(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    policy = " ".join(str(facts.get(key) or "") for key in ("policy_name", "policy_version", "policy_hash")).strip()
    usage = facts.get("usage") or {}
    calls = f"{usage['calls']:,} calls" if usage.get("calls") else ""
    kept = facts.get("intent_kept")
    rows = [
        ("policy", policy),
        ("teacher", ", ".join(part for part in (str(facts.get("teacher") or ""), calls) if part)),
        (
            "intent kept by rewriting",
            "" if kept is None else f"{kept:.1%} of {facts.get('intent_checked', 0):,} checked",
        ),
        ("seed", "" if facts.get("seed") is None else str(facts["seed"])),
        ("commit", str(facts.get("commit") or "")),
        ("command", str(facts.get("command") or "")),
    ]
    return [(name, value) for name, value in rows if value]
