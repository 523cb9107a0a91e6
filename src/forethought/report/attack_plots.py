"""Plots of an attack run, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forethought.evals.metrics import Figure
from forethought.report.attack_figures import AttackResult, SearchResult
from forethought.report.plots import svg

_HARMFUL, _HARMLESS = "#cf222e", "#1f6feb"
_COLOURS = ("#1f6feb", "#cf222e", "#8250df", "#2da44e", "#bf8700", "#0a7ea4", "#d6409f", "#57606a")
_STYLES = ("-", "--", ":")


def attack_dots(results: Sequence[AttackResult]) -> str:
    """A line an attack: success on harmful requests and harmless requests refused, with their intervals."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 0.34 * len(results) + 1.4), layout="constrained")
    axis: Any = canvas.subplots()
    series = (
        (_HARMFUL, "o", -0.13, "attack success on harmful requests", [one.asr for one in results]),
        (_HARMLESS, "s", 0.13, "harmless requests refused", [one.refused for one in results]),
    )
    for colour, marker, offset, label, figures in series:
        drawn = [(row + offset, one) for row, one in enumerate(figures) if one is not None and one.n]
        axis.errorbar(
            [one.value for _, one in drawn], [row for row, _ in drawn], xerr=_errors([one for _, one in drawn]),
            fmt=marker, markersize=5, color=colour, ecolor=colour, elinewidth=1, alpha=0.9, label=label,
        )  # fmt: skip
    axis.set_yticks(range(len(results)), [_label(one) for one in results], fontsize=9)
    axis.set_ylim(len(results) - 0.5, -0.5)
    axis.set_xlim(-0.02, 1.02)
    axis.grid(axis="y", color="#eaeef2", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    canvas.legend(loc="outside upper left", ncols=2, fontsize=9, frameon=False)
    return svg(canvas)


def budget_curves(results: Sequence[SearchResult]) -> str:
    """Attack success by the queries spent on a request, a line a method."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 3.8), layout="constrained")
    axis: Any = canvas.subplots()
    for number, result in enumerate(results):
        points = [(point.budget, point.broken) for point in result.curve if point.broken.n]
        if not points:
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        queries = [place for place, _ in points]
        style = _STYLES[number // len(_COLOURS) % len(_STYLES)]
        axis.plot(queries, [one.value for _, one in points], style, marker=".", color=colour, label=result.name)
        low = [one.value if one.low is None else one.low for _, one in points]
        high = [one.value if one.high is None else one.high for _, one in points]
        axis.fill_between(queries, low, high, color=colour, alpha=0.08, linewidth=0)
    axis.set_xscale("log")
    budgets = sorted({point.budget for result in results for point in result.curve})
    axis.set_xticks(budgets, [str(budget) for budget in budgets], fontsize=9)
    axis.minorticks_off()
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("queries to the attacked model, a request", fontsize=9)
    axis.set_ylabel("attack success", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.lines:
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(canvas)


def _label(result: AttackResult) -> str:
    return result.title if len(result.title) <= 44 else result.title[:43] + "\u2026"


def _errors(figures: Sequence[Figure]) -> list[list[float]]:
    """Distances to the ends of the intervals; none where an end is missing."""
    below = [0.0 if one.low is None else max(0.0, one.value - one.low) for one in figures]
    above = [0.0 if one.high is None else max(0.0, one.high - one.value) for one in figures]
    return [below, above]
