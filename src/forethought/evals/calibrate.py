"""The operating point: a refusal threshold from development rows, no retraining.

The threshold is the lowest that keeps false refusals on harmless development rows within
the limits asked for, so that as many harmful ones as possible are refused. The limits hold
on those rows; what that says about new requests is the upper bound that comes with it, and
`guarantee` chooses a threshold whose bound is within a limit.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from forethought.evals.guarantee import upper_bound
from forethought.records import Record, Request

CONFIDENCE = 0.95
KINDS = ("harmful", "ordinary", "lookalike")


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
    bound_ordinary: float | None = None
    """Upper bound of the rate on new harmless requests, 95 % confidence; None without development rows."""
    bound_lookalike: float | None = None
    """The same for look-alikes."""

    def __str__(self) -> str:
        text = (
            f"set on development rows: refuses {self.refused_harmful:.0%} of {self.n_harmful} harmful,"
            f" {self.refused_ordinary:.0%} of {self.n_ordinary} harmless{_bound(self.bound_ordinary)}"
        )
        if self.refused_lookalike is None:
            return text
        return f"{text}, {self.refused_lookalike:.0%} of {self.n_lookalike} look-alikes{_bound(self.bound_lookalike)}"


def _bound(bound: float | None) -> str:
    return "" if bound is None else f" (at most {bound:.0%} of new ones, {CONFIDENCE:.0%} confidence)"


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
    threshold = 0.0
    if ordinary or lookalike:
        answered = max(_answered(ordinary, max_false_refusal), _answered(lookalike, max_false_refusal_lookalike))
        scores = sorted({*harmful, *ordinary, *lookalike})
        above = bisect_right(scores, answered)
        low = scores[above - 1] if above else scores[0] - 2.0
        high = scores[above] if above < len(scores) else low + 2.0
        threshold = (low + high) / 2

    def refused(group: Sequence[float]) -> float:
        return sum(score >= threshold for score in group) / len(group) if group else 0.0

    return Calibration(
        threshold=threshold,
        refused_harmful=refused(harmful),
        refused_ordinary=refused(ordinary),
        refused_lookalike=refused(lookalike) if lookalike else None,
        n_harmful=len(harmful),
        n_ordinary=len(ordinary),
        n_lookalike=len(lookalike),
        bound_ordinary=_bound_at(max_false_refusal, len(ordinary)),
        bound_lookalike=_bound_at(max_false_refusal_lookalike, len(lookalike)),
    )


def _answered(group: Sequence[float], limit: float) -> float:
    """The highest score that has to stay below the threshold, where a share `limit` of the group may be refused."""
    may_be = math.floor(limit * len(group) + 1e-9)
    return sorted(group, reverse=True)[may_be] if may_be < len(group) else -math.inf


def threshold_on(
    requests: Sequence[Request], scores: Sequence[float], max_false_refusal: float, max_false_refusal_lookalike: float
) -> Calibration:
    """`choose_threshold` on labelled requests, each with its score.

    Its bounds count requests and not rows: one request in two styles is refused in both or in neither, more often
    than not, and says little more than one.
    """
    of_kind = {
        kind: [float(s) for s, row in zip(scores, requests, strict=True) if kind_of(row) == kind] for kind in KINDS
    }
    chosen = choose_threshold(
        of_kind["harmful"], of_kind["ordinary"], of_kind["lookalike"], max_false_refusal, max_false_refusal_lookalike
    )
    distinct = {kind: len({row.seed_id for row in requests if kind_of(row) == kind}) for kind in KINDS}
    bounds = {
        "bound_ordinary": _bound_at(max_false_refusal, distinct["ordinary"]),
        "bound_lookalike": _bound_at(max_false_refusal_lookalike, distinct["lookalike"]),
    }
    return chosen.model_copy(update=bounds)


def kind_of(request: Request) -> str:
    """Which of `KINDS` a labelled request is."""
    if request.harmful:
        return "harmful"
    return "lookalike" if request.kind == "lookalike" else "ordinary"


def _bound_at(limit: float, n: int) -> float | None:
    """Upper bound of the rate on new requests when a threshold may refuse a share `limit` of n.

    It rests on how many may be refused, which is fixed beforehand, and not on how many are:
    a bound at the count seen would not hold for a threshold that was chosen by that count.
    """
    return upper_bound(math.floor(limit * n + 1e-9), n, CONFIDENCE) if n else None
