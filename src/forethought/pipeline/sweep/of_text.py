"""Figures that rest on the words of thoughts and answers.

No log holds those words, so that the figures stand in it themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from forethought.evals.metrics import Figure
from forethought.evals.reasoning_metrics import THOUGHT_FIGURES, thought_figures
from forethought.pipeline.sweep.figures import BASE
from forethought.pipeline.sweep.result import CellResult
from forethought.report.figures import measured_comprehension

_COMPREHENSION = "comprehension_"


def text_figures(cell: CellResult) -> Sequence[Figure]:
    """Those about a cell's thoughts, without its name: from its words, or as the log has them it was taken from."""
    return thought_figures(cell.judged) if cell.logged is None else cell.logged


def understood(cell: CellResult, attacks: Sequence[str]) -> Sequence[Figure] | None:
    """How well the base model understands each style, by its name; None where that can't be told: for another defence,
    or from a log that doesn't say."""
    if cell.defence != BASE:
        return None
    if cell.logged is not None:
        return cell.made.understood if cell.made is not None else None
    return [figure.named(style) for style, figure in measured_comprehension(cell.judged, attacks).items()]


def as_logged(cell: CellResult, found: Sequence[Figure]) -> list[Figure]:
    """A cell's figures; of one taken from a log those that rest on words are as it has them, and what it lacks is left
    out."""
    if cell.logged is None:
        return list(found)
    styles = (cell.made.understood if cell.made is not None else None) or ()
    comprehended = [figure.named(f"{_COMPREHENSION}{figure.name}") for figure in styles]
    held = {figure.name: figure for figure in (*cell.logged, *comprehended)}
    return [held.get(figure.name, figure) for figure in found if figure.name in held or not _of_words(figure.name)]


def _of_words(name: str) -> bool:
    return name in THOUGHT_FIGURES or name.startswith(_COMPREHENSION)
