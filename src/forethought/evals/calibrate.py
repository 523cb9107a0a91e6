"""The operating point: a refusal threshold from development rows, no retraining.

The threshold is the lowest that keeps false refusals on harmless development rows within
the limits asked for, so that as many harmful ones as possible are refused. It is an
empirical choice: no finite-sample guarantee comes with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from forethought.records import Record


class Calibration(Record):
    """A threshold and what it did on the development rows."""

    threshold: float
    """Verdict log-odds (natural logarithm) from which to refuse."""
    refused_harmful: float
    refused_ordinary: float
    refused_lookalike: float | None
    """None without look-alikes among the development rows."""
    n_harmful: int
    n_ordinary: int
    n_lookalike: int

    def __str__(self) -> str:
        look = (
            ""
            if self.refused_lookalike is None
            else f", {self.refused_lookalike:.0%} of {self.n_lookalike} look-alikes"
        )
        return (
            f"set on development rows: refuses {self.refused_harmful:.0%} of {self.n_harmful} harmful,"
            f" {self.refused_ordinary:.0%} of {self.n_ordinary} harmless{look}"
        )


def choose_threshold(
    harmful: Sequence[float],
    ordinary: Sequence[float],
    lookalike: Sequence[float],
    max_false_refusal: float,
    max_false_refusal_lookalike: float,
) -> Calibration:
    """The lowest threshold within both limits, placed midway between two scores.

    Scores are verdict log-odds. Without harmless scores the threshold is zero.
    """
    scores = sorted({*harmful, *ordinary, *lookalike})
    edges = [scores[0] - 1.0] if scores else [0.0]
    edges += [(low + high) / 2 for low, high in itertools.pairwise(scores)]
    edges += [scores[-1] + 1.0] if scores else []

    def refused(group: Sequence[float], threshold: float) -> float:
        return sum(score >= threshold for score in group) / len(group) if group else 0.0

    allowed = [
        edge
        for edge in edges
        if refused(ordinary, edge) <= max_false_refusal and refused(lookalike, edge) <= max_false_refusal_lookalike
    ]
    threshold = min(allowed) if (ordinary or lookalike) and allowed else 0.0
    return Calibration(
        threshold=threshold,
        refused_harmful=refused(harmful, threshold),
        refused_ordinary=refused(ordinary, threshold),
        refused_lookalike=refused(lookalike, threshold) if lookalike else None,
        n_harmful=len(harmful),
        n_ordinary=len(ordinary),
        n_lookalike=len(lookalike),
    )
