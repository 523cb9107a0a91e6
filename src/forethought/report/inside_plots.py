"""Plots of a look inside, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forethought.evals.attacks.catalogue import parse_attack
from forethought.evals.inside.decodable import Probed
from forethought.evals.inside.failures import Table
from forethought.evals.inside.sample import LOOKALIKE, STYLED
from forethought.evals.metrics import Figure
from forethought.report.plots import svg

_CELLS = (
    ("both_right", "#2da44e", "intent and verdict right"),
    ("intent_wrong", "#bf8700", "intent wrong, verdict right"),
    ("verdict_wrong", "#8250df", "intent right, verdict wrong"),
    ("both_wrong", "#cf222e", "both wrong"),
    ("unscored", "#d0d7de", "no verdict"),
)
AREAS = (
    ("inside_auroc_own", "#1f6feb", "o", "verdict, own thought"),
    ("inside_auroc_empty", "#9aa0a6", "s", "verdict, no thought"),
    ("inside_auroc_other", "#d6409f", "x", "verdict, another's thought"),
    ("inside_probe_prompt_base", "#2da44e", "v", "probe before the thought, base weights"),
    ("inside_probe_prompt_trained", "#0a7ea4", "^", "probe before the thought, trained weights"),
    ("inside_probe_verdict_base", "#bf8700", "<", "probe at the verdict, base weights"),
    ("inside_probe_verdict_trained", "#8250df", ">", "probe at the verdict, trained weights"),
)
"""Stem of a figure, its colour and mark, and how it is called: for plot and tables."""
_LINES = {("prompt", "base"): 3, ("prompt", "trained"): 4, ("verdict", "base"): 5, ("verdict", "trained"): 6}


def group_title(group: str) -> str:
    """How a group of requests is called."""
    known = {LOOKALIKE: "Look-alikes", STYLED: "Mean over styles"}
    return known.get(group) or parse_attack(group).title


def swap_bars(figures: Mapping[str, Figure]) -> str:
    """Shares of verdicts that change sides: with an intent from the other side, and from the request's own."""
    from matplotlib.figure import Figure as Canvas

    bars = (
        ("inside_follow_to_harmless", "harmful request, harmless intent: now complies", "#1f6feb"),
        ("inside_control_harmful", "harmful request, another harmful intent (control)", "#9aa0a6"),
        ("inside_follow_to_harmful", "harmless request, harmful intent: now refuses", "#1f6feb"),
        ("inside_control_harmless", "harmless request, another harmless intent (control)", "#9aa0a6"),
    )
    drawn = [(figures[name], title, colour) for name, title, colour in bars if name in figures and figures[name].n]
    canvas = Canvas(figsize=(10, 0.5 * len(drawn) + 0.9), layout="constrained")
    axis: Any = canvas.subplots()
    axis.barh(
        range(len(drawn)), [one.value for one, _, _ in drawn], 0.6, xerr=_errors([one for one, _, _ in drawn]),
        color=[colour for _, _, colour in drawn], error_kw={"ecolor": "#444444", "elinewidth": 0.8},
    )  # fmt: skip
    axis.set_yticks(range(len(drawn)), [title for _, title, _ in drawn], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of verdicts that change sides", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    return svg(canvas)


def failure_bars(tables: Sequence[Table]) -> str:
    """One bar a style and label, divided by the two by two table."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 0.34 * len(tables) + 1.3), layout="constrained")
    axis: Any = canvas.subplots()
    starts = [0.0] * len(tables)
    for cell, colour, title in _CELLS:
        shares = [getattr(table, cell) / max(1, _total(table)) for table in tables]
        axis.barh(range(len(tables)), shares, 0.7, left=starts, color=colour, label=title)
        starts = [start + share for start, share in zip(starts, shares, strict=True)]
    axis.set_yticks(range(len(tables)), [table_title(table) for table in tables], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of requests", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    canvas.legend(loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    return svg(canvas)


def table_title(table: Table) -> str:
    """Style and label of a two by two table."""
    return f"{parse_attack(table.style).title}, {'harmful' if table.harmful else 'harmless'}"


def _total(table: Table) -> int:
    return sum(int(getattr(table, cell)) for cell, _, _ in _CELLS)


def layer_lines(probed: Sequence[Probed], figures: Mapping[str, Figure], group: str) -> str:
    """AUROC of each probe by layer on a group of held-out requests; the model's own verdict there as a line across."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 3.6), layout="constrained")
    axis: Any = canvas.subplots()
    for one in probed:
        _, colour, mark, title = AREAS[_LINES[one.position, one.weights]]
        axis.plot(list(one.by_layer), list(one.by_layer.values()), color=colour, marker=mark, markersize=4, label=title)
    own = figures.get(f"{AREAS[0][0]}_{group}")
    if own is not None and own.n:
        axis.axhline(own.value, color="#444444", linewidth=1, linestyle="--", label="the model's own verdict")
    axis.set_xticks(sorted({layer for one in probed for layer in one.by_layer}))
    axis.set_xlabel("layer", fontsize=9)
    axis.set_ylabel(f"AUROC, {group_title(group).lower()}", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    return svg(canvas)


def area_dots(figures: Mapping[str, Figure], groups: Sequence[str]) -> str:
    """AUROC of verdicts and probes by group of requests, with intervals."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 0.75 * len(groups) + 1.8), layout="constrained")
    axis: Any = canvas.subplots()
    for number, (stem, colour, mark, title) in enumerate(AREAS):
        drawn = [(row, figures[f"{stem}_{group}"]) for row, group in enumerate(groups) if f"{stem}_{group}" in figures]
        if not drawn:
            continue
        axis.errorbar(
            [one.value for _, one in drawn], [row + 0.1 * (number - 3) for row, _ in drawn],
            xerr=_errors([one for _, one in drawn]), fmt=mark, markersize=5, color=colour, ecolor=colour,
            elinewidth=0.8, alpha=0.9, label=title,
        )  # fmt: skip
    axis.set_yticks(range(len(groups)), [group_title(group) for group in groups], fontsize=9)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.axvline(0.5, color="#d0d7de", linewidth=1)
    axis.set_xlabel("AUROC, harmful against harmless", fontsize=9)
    axis.grid(axis="y", color="#eaeef2", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    canvas.legend(loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    return svg(canvas)


def _errors(figures: Sequence[Figure]) -> list[list[float]]:
    """Distances to the ends of the intervals; none where an end is missing."""
    below = [0.0 if one.low is None else max(0.0, one.value - one.low) for one in figures]
    above = [0.0 if one.high is None else max(0.0, one.high - one.value) for one in figures]
    return [below, above]
