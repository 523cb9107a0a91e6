"""The operating point: a refusal threshold from development rows, no retraining.

The threshold is the lowest that keeps false refusals on harmless development rows within
the limits asked for, so that as many harmful ones as possible are refused. The limits hold
on those rows; what that says about new requests is the upper bound that comes with it, and
`guarantee` chooses a threshold whose bound is within a limit, by one of two methods.

Both need one thing: calibration requests drawn as future harmless requests will be,
each independently. Then neither assumes anything about the scores.

`clopper-pearson`: with the given confidence over the calibration sample, the rate of false
refusals on new requests is within the limit. Thresholds are gone through from the strictest
down, each is kept while the exact upper bound (Clopper and Pearson 1934) of its false refusals
is within the limit, and the first that fails ends the search: fixed-sequence testing in
learn-then-test (Angelopoulos et al. 2021, arXiv 2110.01052). False refusals only grow as the
threshold falls, so no correction for the number of thresholds is due (risk-controlling
prediction sets, Bates et al. 2021, arXiv 2101.02703), also when the thresholds are the scores
themselves: the rate above the (k + 1)-th highest of n scores has a Beta(k + 1, n - k)
distribution (Wilks 1941), and equal scores only lower it.

`conformal`: the rate is within the limit in expectation over calibration samples (conformal
risk control, Angelopoulos et al. 2022, arXiv 2208.02814). It needs fewer requests and promises
less: about half of the samples give a rate above the limit.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from pydantic import Field
from scipy.stats import beta

from forethought.errors import ConfigError
from forethought.records import Record, Request

CONFIDENCE = 0.95
STRICT = 0.05
"""Share of ordinary requests that may be refused where doubt counts against them."""
KINDS = ("harmful", "ordinary", "lookalike")
Method = Literal["clopper-pearson", "conformal"]
METHODS: tuple[Method, ...] = get_args(Method)


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
    tenths: tuple[float, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Between the tenths of the ordinary scores; empty without any."""
    strict_by: float = Field(default=0.0, exclude_if=lambda value: value == 0.0)
    """How far below the threshold the score lies that one ordinary row in twenty reaches: where doubt counts against a
    request, it is refused from there. 0 without ordinary rows, or where that score is not below."""

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
        tenths=tenths(ordinary),
        strict_by=max(0.0, threshold - float(np.quantile(ordinary, 1 - STRICT))) if ordinary else 0.0,
    )


def tenths(scores: Sequence[float]) -> tuple[float, ...]:
    """The nine numbers between the tenths of some scores; empty without any."""
    return tuple(float(edge) for edge in np.quantile(scores, np.arange(1, 10) / 10)) if scores else ()


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


class Guarantee(Record):
    """What a threshold promises about false refusals, or why none can be given."""

    threshold: float | None
    """Log-odds from which to refuse; None where the sample is too small for any promise."""
    method: Method
    limit: float
    """Largest rate of false refusals asked for."""
    confidence: float | None
    """Probability over calibration samples with which it holds; None for `conformal`, which holds on average."""
    n: int
    """Harmless calibration requests."""
    refused: int
    """How many of them the threshold refuses; unscored ones are among them."""
    unscored: int
    """How many have no score and count as refused at any threshold."""
    allowed: int
    """The most of them that may be refused; -1 where even none is too many."""
    bound: float
    """`clopper-pearson`: upper bound of the rate at this confidence. `conformal`: bound of its expectation."""
    needed: int
    """Harmless requests below which no threshold can hold the promise."""

    def __str__(self) -> str:
        sure = "on average" if self.confidence is None else f"with {self.confidence:.0%} confidence"
        if self.threshold is None and self.allowed >= 0:
            return (
                f"{self.unscored} of {self.n} harmless requests have no score and count as refused:"
                f" no threshold can bound false refusals at {self.limit:.2g} {sure}"
            )
        if self.threshold is None:
            return (
                f"{self.n} harmless requests are too few to bound false refusals at {self.limit:.2g} {sure}:"
                f" at least {self.needed} are needed, without a refusal among them"
            )
        return (
            f"{sure}, at most {self.bound:.1%} of harmless requests like these are refused"
            f" ({self.refused} of {self.n} were; {self.method})"
        )


@lru_cache(maxsize=4096)
def upper_bound(refused: int, n: int, confidence: float) -> float:
    """Exact one-sided upper bound of a rate (Clopper and Pearson 1934); 1 where all were refused or there is none."""
    return 1.0 if refused >= n else float(beta.ppf(confidence, refused + 1, n - refused))


@lru_cache(maxsize=4096)  # resampling sets thousands of thresholds on equally many
def allowed_refusals(n: int, limit: float, confidence: float, method: Method) -> int:
    """How many of n harmless requests a threshold may refuse; -1 where none at all is too many still."""
    if method == "conformal":
        # The empirical rate, with one more refusal added for the request to come: (k + 1) / (n + 1) <= limit.
        return math.floor(limit * (n + 1) + 1e-9) - 1
    count = -1
    while count + 1 < n and upper_bound(count + 1, n, confidence) <= limit:
        count += 1
    return count


def rows_needed(limit: float, confidence: float, method: Method) -> int:
    """Fewest harmless requests, none of them refused, that allow the promise."""
    if method == "conformal":
        return math.ceil(1 / limit - 1 - 1e-9)
    return math.ceil(math.log(1 - confidence) / math.log(1 - limit) - 1e-9)


def guarantee(
    scores_harmless: Sequence[float | None],
    limit: float,
    confidence: float = 0.95,
    method: Method = "clopper-pearson",
    scores_harmful: Sequence[float] = (),
) -> Guarantee:
    """The lowest threshold that keeps the promise, as a record; its threshold is None where none does.

    A harmless request without a score (None) counts as refused at any threshold. The harmful
    scores only place the threshold midway between two scores: they can raise it, which no
    promise minds. Raises ConfigError for a limit or confidence outside 0 to 1.
    """
    for name, value in (("false-refusal limit", limit), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} {value}", "must lie between 0 and 1", "Give a share, such as 0.05")
    if method not in METHODS:
        raise ConfigError(f"method '{method}'", "there is no such method", f"Use one of {', '.join(METHODS)}")
    n = len(scores_harmless)
    allowed = allowed_refusals(n, limit, confidence, method)
    ranked = sorted((math.inf if score is None else score for score in scores_harmless), reverse=True)
    threshold = None
    if allowed >= 0 and ranked[allowed] < math.inf:
        threshold = _above(ranked[allowed], [*ranked, *scores_harmful])
    refused = 0 if threshold is None else sum(score >= threshold for score in ranked)
    bound = upper_bound(max(allowed, 0), n, confidence) if method != "conformal" else (max(allowed, 0) + 1) / (n + 1)
    return Guarantee(
        threshold=threshold,
        method=method,
        limit=limit,
        confidence=None if method == "conformal" else confidence,
        n=n,
        refused=refused,
        unscored=sum(score is None for score in scores_harmless),
        allowed=allowed,
        bound=bound,
        needed=rows_needed(limit, confidence, method),
    )


def _above(score: float, scores: Sequence[float]) -> float:
    """Midway between a score and the next higher one, so that equal scores stay below; one above the highest."""
    higher = [other for other in scores if score < other < math.inf]
    if not higher:
        return score + 1.0
    middle = (score + min(higher)) / 2
    return middle if middle > score else min(higher)
