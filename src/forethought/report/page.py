"""The one renderer of pages: a self-contained HTML file that opens without a network, for light, dark, narrow, print.

Each kind of page has a template that extends `base.html.j2` and gives it sections.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from forethought.report.theme import DARK, LIGHT


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
