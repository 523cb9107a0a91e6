"""A rung of a ladder, as its table, plot and page take it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from forethought.evals.metrics import Figure
from forethought.records import Record


class Rung(Record):
    """One defence of a ladder, beside the one that all rungs are set against and the one that it comes after."""

    defence: str
    part: str = ""
    """The sweep that it stands in first."""
    why: str = ""
    before: str = ""
    """The rung whose changes it takes over or whose weights it shares; empty where that is the one that all are set
    against, or none."""
    figures: Mapping[str, Figure] = {}
    """By name, without the defence's."""
    against: Mapping[str, Figure] = {}
    """By name: this rung minus the reference, on the same requests."""
    gained: Mapping[str, Figure] = {}
    """By name: this rung minus `before`."""
    missing: str = ""
    """Why there is nothing."""


def sign_of(difference: Figure) -> int:
    """1 for a gain, -1 for a loss, 0 where the interval holds both, or there is none."""
    low, high = difference.low, difference.high
    if low is None or high is None or math.isnan(difference.value):
        return 0
    return (low > 0) - (high < 0)


def turned(figure: Figure) -> Figure:
    """A difference seen from the other side."""
    low, high = figure.low, figure.high
    return figure.model_copy(
        update={
            "value": -figure.value if not math.isnan(figure.value) else figure.value,
            "low": None if high is None else -high,
            "high": None if low is None else -low,
        }
    )


def gain(difference: Figure | None) -> str:
    """A difference as text, with its interval; a dash where it was not measured."""
    if difference is None or math.isnan(difference.value):
        return "-"
    text, low, high = f"{difference.value:+.2f}", difference.low, difference.high
    return text if low is None or high is None else f"{text} ({low:+.2f} to {high:+.2f})"
