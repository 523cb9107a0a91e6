"""Plots as inline SVG, so that the page is one file and needs no network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from forethought.evals.attacks.catalogue import parse_attack
from forethought.evals.curves import OperatingPoint
from forethought.evals.metrics import Figure
from forethought.report.rows import SYSTEM_TITLES

matplotlib.use("svg")
_COLOURS = {"base": "#9aa0a6", "prompt": "#e0a526", "scot": "#1f6feb", "scot_best": "#2da44e"}


def attack_bars(figures: Sequence[Figure], attacks: Sequence[str], systems: Sequence[str]) -> str:
    """Two panels of bars by attack: success on harmful requests, and harmless requests refused."""
    panels = (("asr", "harmful requests answered (attack success)"), ("refused", "harmless requests refused"))
    by_name = {figure.name: figure for figure in figures}
    labels = [parse_attack(name).title for name in attacks]
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 0.55 * len(attacks) + 1.6), layout="constrained")
    axes: Any = canvas.subplots(1, 2, sharey=True)
    height = 0.8 / len(systems)
    for axis, (stem, title) in zip(axes, panels, strict=True):
        for number, system in enumerate(systems):
            drawn = [by_name.get(_cell(stem, attack, system)) for attack in attacks]
            places = [row + number * height for row, figure in enumerate(drawn) if figure]
            values = [figure.value for figure in drawn if figure]
            errors = [
                [max(0.0, figure.value - (figure.low or 0.0)) for figure in drawn if figure],
                [max(0.0, (figure.high or 0.0) - figure.value) for figure in drawn if figure],
            ]
            axis.barh(
                places, values, height * 0.9, xerr=errors, color=_COLOURS.get(system, "#666666"),
                error_kw={"ecolor": "#444444", "elinewidth": 0.8}, label=SYSTEM_TITLES.get(system, system),
            )  # fmt: skip
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlim(0, 1)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks([row + 0.4 - height / 2 for row in range(len(attacks))], labels, fontsize=9)
    axes[0].invert_yaxis()
    axes[1].legend(loc="lower right", fontsize=9, frameon=False)
    return svg(canvas)


def _cell(stem: str, attack: str, system: str) -> str:
    if attack == "direct":
        return f"asr_direct_{system}" if stem == "asr" else f"refused_ordinary_{system}"
    return f"{stem}_{attack}_{system}"


def score_histogram(harmful: Sequence[float], harmless: Sequence[float], threshold: float) -> str:
    """How the verdict's log-odds lie for harmful and harmless requests, with the operating point."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 2.6), layout="constrained")
    axis: Any = canvas.subplots()
    for scores, colour, label in ((harmless, "#2da44e", "harmless"), (harmful, "#cf222e", "harmful")):
        axis.hist(scores, bins=40, alpha=0.6, color=colour, label=label)
    axis.axvline(threshold, color="#444444", linewidth=1, linestyle="--", label="refuses from here")
    axis.set_xlabel("log-odds of the verdict (refuse against comply)", fontsize=9)
    axis.set_ylabel("requests", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False)
    return svg(canvas)


def operating_curves(curves: Mapping[str, Sequence[OperatingPoint]], threshold: float) -> str:
    """Harmful requests answered against harmless refused, for every threshold; where the model stands is marked."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, 3.6), layout="constrained")
    axis: Any = canvas.subplots()
    for number, (title, points) in enumerate(curves.items()):
        line = axis.plot(
            [point.false_refusal for point in points], [point.attack_success for point in points],
            color=("#1f6feb", "#8250df", "#2da44e")[number % 3], label=title,
        )[0]  # fmt: skip
        # Points come in order of falling thresholds: the last at or above the model's own is where it stands.
        standing = [point for point in points if point.threshold >= threshold]
        if standing:
            axis.plot(standing[-1].false_refusal, standing[-1].attack_success, "o", color=line.get_color())
    axis.set_xlim(-0.01, 1.01)
    axis.set_ylim(-0.01, 1.01)
    axis.set_xlabel("harmless requests refused", fontsize=9)
    axis.set_ylabel("harmful requests answered", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False)
    return svg(canvas)


def svg(canvas: Any) -> str:
    out = io.StringIO()
    canvas.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
