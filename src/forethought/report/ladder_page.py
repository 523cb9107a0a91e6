"""The page of a ladder: one self-contained HTML file with all its rungs, and its plot as a file of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from itertools import groupby
from pathlib import Path

from jinja2 import Environment

from forethought.report.ladder_plot import gains
from forethought.report.rows import interval
from forethought.report.rung import Rung, gain, sign_of
from forethought.report.theme import alone, themed

PAGE, PLOT = "report.html", "gains.svg"
_FIGURES = (
    ("auroc_unseen", "AUROC, unseen styles"),
    ("youden_unseen", "Youden's J, unseen styles"),
    ("auroc_lookalike", "AUROC, look-alikes"),
    ("refused_ordinary", "Ordinary requests refused"),
    ("rule_named_right", "Rule named right"),
    ("reasoning_tokens_harmless", "Tokens of thought, harmless"),
)
_GAINS = (("auroc_unseen", "AUROC"), ("youden_unseen", "J"))


def write_ladder_page(
    folder: Path, title: str, rungs: Sequence[Rung], reference: str, pages: Sequence[tuple[str, str]]
) -> Path:
    """Writes page and plot into a folder and returns the page. `pages` are (name, link) of each sweep's own."""
    plot = gains(rungs, reference)
    _write(folder / PLOT, alone(*plot, salt="ladder") if plot is not None else "")
    file = resources.files("forethought").joinpath("report/templates/ladder.html.j2")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        file.read_text(encoding="utf-8")
    )
    shown = [one for one in rungs if not one.missing]
    content = template.render(
        title=title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        reference=reference,
        plot=themed(*plot, salt="ladder") if plot is not None else "",
        figures=[heading for _, heading in _FIGURES],
        gains=[heading for _, heading in _GAINS],
        parts=[(name, [_line(one) for one in members]) for name, members in groupby(shown, key=lambda one: one.part)],
        missing=[(one.defence, one.missing) for one in rungs if one.missing],
        pages=list(pages),
    )
    _write(folder / PAGE, content)
    return folder / PAGE


def _line(rung: Rung) -> dict[str, object]:
    over = [rung.against.get(stem) for stem, _ in _GAINS]
    since = [rung.gained.get(stem) for stem, _ in _GAINS]
    return {
        "rung": rung.defence,
        "why": rung.why,
        "before": rung.before,
        "cells": [interval(rung.figures.get(stem)) for stem, _ in _FIGURES],
        "over": [(gain(one), one is not None and sign_of(one) != 0) for one in over],
        "since": [(gain(one), one is not None and sign_of(one) != 0) for one in since],
    }


def _write(path: Path, text: str) -> None:
    """Into place in one step. Nothing to write removes what an earlier run left."""
    if not text:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
