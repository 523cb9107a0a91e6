"""Plots that follow a page's light or dark theme, and the same plots as files of their own."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib

from forethought.report.plots import svg

INK, SOFT, LINE, ONE, BEST = "#1f2328", "#59636e", "#d1d9e0", "#0b5cad", "#a34a00"
_THEME = {INK: "--ink", SOFT: "--soft", LINE: "--line", ONE: "--one", BEST: "--best"}
"""Colours as matplotlib writes them, and the page's variables that replace them."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "figure.facecolor": "none", "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "font.size": 9.0, "axes.labelsize": 9.0,
}  # fmt: skip


def themed(draw: Callable[[], Any], alt: str, salt: str) -> str:
    """The drawing as SVG with a text in its place for those who can't see it, in the colours of the page around it."""
    text = _drawn(draw, salt, {})
    for colour, variable in _THEME.items():
        text = text.replace(colour, f"var({variable})")
    return _described(text, alt)


def alone(draw: Callable[[], Any], alt: str, salt: str) -> str:
    """The same as a file of its own: dark on white wherever it is shown, and its words drawn, since fonts differ."""
    return _described(_drawn(draw, salt, {"figure.facecolor": "white", "svg.fonttype": "path"}), alt)


def canvas_of(height: float) -> Any:
    """An empty figure, ten inches wide."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(10, height), layout="constrained")


def _drawn(draw: Callable[[], Any], salt: str, settings: dict[str, Any]) -> str:
    whole: Any = {**_STYLE, "svg.hashsalt": salt, **settings}
    with matplotlib.rc_context(whole):
        return svg(draw())


def _described(text: str, alt: str) -> str:
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
