"""Redaction: the default wherever a person reads a harmful request or an answer to one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape


def redact(text: str, keep_words: int = 3) -> str:
    """The first words and how many follow: enough to recognise a row, not to use it."""
    words = text.split()
    if len(words) <= keep_words:
        return text
    return f"{' '.join(words[:keep_words])} [{len(words) - keep_words} words redacted]"


def shown(text: str, harmful: bool | None, show_harmful: bool) -> str:
    """A text of a request with that label as a page has it: redacted unless it is harmless, or all is to be shown.

    Intent, thought and answer go by their request: the first two quote it, and what did not refuse may hold harm.
    """
    return text if show_harmful or harmful is False else redact(text)


# One palette for pages and plots, in light and in dark.
#
# A plot is drawn in the light colours; on a page each of them becomes the page's variable of the same name, so that a
# plot follows its reader's theme. So no two of the colours that plots use may be the same in light.

LIGHT = {
    # Text, lines and grounds.
    "ink": "#1f2328", "soft": "#59636e", "line": "#d1d9e0", "back": "#ffffff", "card": "#f6f8fa", "tag": "#e7ecf0",
    "good": "#dcf5e3", "bad": "#ffe3e0", "warn": "#fff3cd",
    # Marks and areas.
    "one": "#0b5cad", "best": "#a34a00", "harmful": "#c9453b", "harmless": "#2f7fbf", "plain": "#6b7885",
    "green": "#1a7f37", "purple": "#8250df", "amber": "#b07c00", "teal": "#0a7ea4", "pink": "#bf3989",
    # Steps of a heat map, above and below nothing, and what is written on the strong ones.
    "p1": "#dbeafa", "p2": "#b3d4f5", "p3": "#1f6cb4", "p4": "#0a4480",
    "n1": "#fdebd9", "n2": "#f8ca9c", "n3": "#b35a12", "n4": "#853b00", "strong": "#ffffff",
}  # fmt: skip
DARK = {
    "ink": "#e6edf3", "soft": "#9aa5b1", "line": "#333c46", "back": "#0e1217", "card": "#161c23", "tag": "#2a333d",
    "good": "#12391f", "bad": "#4f211e", "warn": "#3d3210",
    "one": "#6cb0f5", "best": "#f0a35e", "harmful": "#e5695f", "harmless": "#58a6e6", "plain": "#8a97a5",
    "green": "#4ac26b", "purple": "#b48efa", "amber": "#d8a326", "teal": "#3fc1d6", "pink": "#f07dbd",
    "p1": "#15273a", "p2": "#1b3d60", "p3": "#6cb0f5", "p4": "#b5d8fb",
    "n1": "#33240f", "n2": "#573a12", "n3": "#f0a35e", "n4": "#f9d3ad", "strong": "#0e1217",
}  # fmt: skip

INK, SOFT, LINE = LIGHT["ink"], LIGHT["soft"], LIGHT["line"]
ONE, BEST = LIGHT["one"], LIGHT["best"]
"""What a plot is about, and what stands out from it."""
HARMFUL, HARMLESS = LIGHT["harmful"], LIGHT["harmless"]
GREEN, PURPLE, AMBER, TEAL, PINK = (LIGHT[name] for name in ("green", "purple", "amber", "teal", "pink"))
SERIES = (ONE, HARMFUL, PURPLE, GREEN, AMBER, TEAL, PINK, SOFT)
"""For lines that have no meaning of their own."""


# The one renderer of pages: a self-contained HTML file that opens without a network, for light, dark, narrow, print.
#
# Each kind of page has a template that extends `base.html.j2` and gives it sections.


def write_page(path: Path, template: str, title: str, **content: Any) -> None:
    """Renders a template into `path`, whole or not at all."""
    page = _environment().get_template(f"{template}.html.j2")
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_whole(path, page.render(title=title, made=made, light=LIGHT, dark=DARK, **content))


def write_whole(path: Path, text: str) -> None:
    """Writes a file beside its place, then moves it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("forethought.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters |= {"breakable": _breakable, "stacked": _stacked, "number": "{:,}".format, "p_value": _p_value}
    return found


def _breakable(name: str) -> Markup:
    """A name that may break after an underscore, so that it leaves room on a narrow screen."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _stacked(text: str) -> Markup:
    """A figure as text with the count of its unscored answers below it."""
    value, comma, rest = text.partition(", ")
    return escape(value) + Markup('<span class="small">{}</span>').format(rest) if comma else escape(value)


def _p_value(p: float | None) -> str:
    return "-" if p is None else "below 0.001" if p < 0.001 else f"{p:.3f}"
