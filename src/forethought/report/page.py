"""The one renderer of pages: self-contained HTML files that open without a network, for light, dark, narrow and print.

Each kind of page has a template that extends `base.html.j2` and gives it sections. Redaction is the default wherever a
person reads a harmful request or an answer to one. `palette.yaml` has the colours of pages and plots.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
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


_PALETTE = yaml.safe_load(resources.files("forethought").joinpath("report", "palette.yaml").read_text("utf-8"))
LIGHT: dict[str, str] = _PALETTE["light"]
DARK: dict[str, str] = _PALETTE["dark"]
INK, SOFT, LINE = LIGHT["ink"], LIGHT["soft"], LIGHT["line"]
ONE, BEST = LIGHT["one"], LIGHT["best"]
"""What a plot is about, and what stands out from it."""
HARMFUL, HARMLESS = LIGHT["harmful"], LIGHT["harmless"]
GREEN, PURPLE, AMBER, TEAL, PINK = (LIGHT[name] for name in ("green", "purple", "amber", "teal", "pink"))
SERIES = (ONE, HARMFUL, PURPLE, GREEN, AMBER, TEAL, PINK, SOFT)
"""For lines that have no meaning of their own."""


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
