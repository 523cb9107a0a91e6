"""How far a threshold can be trusted on other traffic, and whether traffic has left what it was set on.

The rows of a source tell its rate of false refusals; only other sources tell how rates differ from one to the next. So
each source is left out in turn, the threshold is set on the others, and what it refuses of the one left out is kept. Of
K such rates a further source, drawn as these were, stays below the k-th with probability k / (K + 1), which for the
highest of nine is nine in ten: ranks need no more than that (hierarchical conformal prediction: Dunn, Wasserman and
Ramdas 2018, arXiv 1809.07441; Lee, Barber and Willett 2023, arXiv 2306.06342). A rate is itself counted on few rows, so
each counts with its exact upper bound.
Whether the bound does hold is tried in the same way: once more each source is left out, and the bound of the others is
held against it, over draws of their rows.

Whether traffic has moved is told by its scores: their shares in the tenths of the scores that the threshold was set on,
by the population stability index (sum of (share - tenth) * log(share / tenth)). Some 0.1 is chance or a small move;
from 0.25 on the threshold rests on traffic of another kind.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
from pydantic import Field
from scipy.stats import t

from forethought.manifest import write_json
from forethought.measure.calibrate import CONFIDENCE, Guarantee, Method, guarantee, tenths, upper_bound
from forethought.records import Record, read_record

TRAFFIC = "traffic.json"
"""Beside the threshold that it is about."""
Sources = Mapping[str, Sequence[float | None]]
"""Scores of harmless requests by source; None is unscored."""
Setting = Callable[[Sources], float]
"""From the scores of some sources to the threshold that they set."""
WORST = 2
"""How many times the limit a single source may be refused."""
FEWEST_SOURCES = 9
"""Below that no bound can hold for nine in ten further sources."""
HOLDS = 0.9
"""Share of further sources that a bound is for, and of draws from which it is said to hold."""
DRIFT_LIMIT = 0.25
FEWEST_SEEN = 200
"""Scores below which nothing is said about drift: chance alone gives an index of 9 / n."""
_WINDOW = 1000
"""Latest scores that are compared."""
_DRAWS = 90
"""Of the rows, over all sources that are left out."""
_PARTS = 10


class SourceRate(Record):
    """What is refused of one source."""

    name: str
    n: int
    refused: float
    """At the threshold that was set."""
    left_out: float
    """At the one that the other sources would set."""


class Transfer(Record):
    """What a threshold does on sources that had no part in setting it."""

    sources: tuple[SourceRate, ...]
    mean: float
    low: float
    high: float
    """Of the rates when left out, with the 95 % interval over sources."""
    bound: float
    """What nine in ten further sources stay below, were they drawn like these; of fewer than nine the highest."""
    holds: float
    """Share of draws in which the bound of the other sources held for the one left out."""

    @property
    def worst(self) -> SourceRate:
        """The source that is refused most when left out."""
        return max(self.sources, key=lambda one: one.left_out)

    @property
    def trusted(self) -> bool:
        """Whether the bound can be relied on for nine further sources in ten."""
        return len(self.sources) >= FEWEST_SOURCES and self.holds >= HOLDS

    def __str__(self) -> str:
        n, worst = len(self.sources), self.worst
        found = (
            f"on traffic from elsewhere, each of {n} sources left out in turn: {self.mean:.1%} refused in the mean"
            f" ({self.low:.1%} to {self.high:.1%} over sources), {worst.left_out:.1%} in the worst ({worst.name});"
        )
        if self.trusted:
            held = f"which held in {self.holds:.0%} of draws"
            return f"{found} nine in ten further sources stay below {self.bound:.1%}, {held}"
        why = f"it held for a source left out in {self.holds:.0%} of draws only"
        if n < FEWEST_SOURCES:
            why = f"{n} sources can vouch for {n / (n + 1):.0%} of further ones, and {FEWEST_SOURCES} are needed"
        return f"{found} the bound is NOT to be relied on for other traffic: {why}"


def set_across(
    sources: Sources,
    limit: float,
    confidence: float = CONFIDENCE,
    method: Method = "clopper-pearson",
    harmful: Sequence[float] = (),
    own: Sequence[float | None] | None = None,
) -> Guarantee:
    """`guarantee` on all sources together, or on one's own, at a threshold that refuses no source more than twice the
    limit.

    One refusal of a source is never too many. The threshold is None where the rows are too few for the promise.
    """
    everything = own if own is not None else [score for scores in sources.values() for score in scores]
    found = guarantee(everything, limit, confidence, method, harmful)
    if found.threshold is None or len(sources) == 1:
        return found
    threshold = max([found.threshold, *(_allowing(scores, WORST * limit) for scores in sources.values())])
    return found.model_copy(
        update={"threshold": threshold, "refused": sum(s is None or s >= threshold for s in everything)}
    )


def transfer(sources: Sources, threshold: float, set_on: Setting, confidence: float = CONFIDENCE) -> Transfer | None:
    """What is refused of each source at the threshold, and at the one that `set_on` all others gives; None for one
    source alone, which says nothing of others."""
    if len(sources) < 2:
        return None
    left_out = _left_out(sources, set_on)
    rates = np.array([refused / n for refused, n in left_out.values()])
    margin = float(t.ppf(0.975, len(rates) - 1) * rates.std(ddof=1) / math.sqrt(len(rates)))
    return Transfer(
        sources=tuple(
            SourceRate(name=name, n=len(scores), refused=refused_at(scores, threshold), left_out=float(rate))
            for (name, scores), rate in zip(sources.items(), rates, strict=True)
        ),
        mean=float(rates.mean()),
        low=max(0.0, float(rates.mean()) - margin),
        high=min(1.0, float(rates.mean()) + margin),
        bound=_bound(left_out, confidence),
        holds=coverage(sources, set_on, confidence),
    )


def coverage(
    sources: Sources, set_on: Setting, confidence: float = CONFIDENCE, draws: int = _DRAWS, seed: int = 0
) -> float:
    """Share of draws in which the bound that all other sources give holds for the one left out.

    A draw takes the rows of each other source anew, with replacement. With two sources nothing is left to compare.
    """
    if len(sources) < 3:
        return 0.0
    rng, held, each = Random(seed), 0, max(1, draws // len(sources))
    for name, scores in sources.items():
        others = {other: rows for other, rows in sources.items() if other != name}
        for _ in range(each):
            drawn = {other: rng.choices(rows, k=len(rows)) for other, rows in others.items()}
            held += refused_at(scores, set_on(drawn)) <= _bound(_left_out(drawn, set_on), confidence)
    return held / (each * len(sources))


def _left_out(sources: Sources, set_on: Setting) -> dict[str, tuple[int, int]]:
    """(refused, n) of each source, at the threshold that the others set."""
    found = {}
    for name, scores in sources.items():
        threshold = set_on({other: rows for other, rows in sources.items() if other != name})
        found[name] = (round(refused_at(scores, threshold) * len(scores)), len(scores))
    return found


def threshold_or_highest(found: Guarantee, sources: Sources) -> float:
    """Of a guarantee; where the rows were too few for one, a threshold that refuses none of them."""
    if found.threshold is not None:
        return found.threshold
    return max((s for scores in sources.values() for s in scores if s is not None), default=math.inf) + 1e-9


def _bound(left_out: Mapping[str, tuple[int, int]], confidence: float) -> float:
    rates = sorted(upper_bound(refused, n, confidence) for refused, n in left_out.values())
    return rates[min(len(rates), math.ceil(HOLDS * (len(rates) + 1) - 1e-9)) - 1]


def refused_at(scores: Sequence[float | None], threshold: float) -> float:
    """Share refused at a threshold; without a score counts as refused."""
    return sum(score is None or score >= threshold for score in scores) / len(scores)


def _allowing(scores: Sequence[float | None], limit: float) -> float:
    """The lowest threshold, right above a score, that refuses at most this share of the scores; none counts as one."""
    ranked = sorted((score for score in scores if score is not None), reverse=True)
    allowed = max(1, math.floor(limit * len(scores) + 1e-9)) - (len(scores) - len(ranked))
    return ranked[max(allowed, 0)] + 1e-9 if allowed < len(ranked) else -math.inf


class Reference(Record):
    """The scores of the traffic that a threshold was set on."""

    edges: tuple[float, ...] = Field(min_length=_PARTS - 1, max_length=_PARTS - 1)
    """Between its tenths."""
    n: int

    @classmethod
    def of(cls, scores: Sequence[float | None]) -> Reference:
        known = [score for score in scores if score is not None]
        return cls(edges=tenths(known), n=len(known))

    def part(self, score: float) -> int:
        """In which tenth a score lies."""
        return bisect_right(self.edges, score)

    def index(self, counts: Sequence[int]) -> float:
        """Population stability index of the numbers of scores in each part; half a score more in each, so that none
        is empty."""
        shares = (np.array(counts) + 0.5) / (sum(counts) + 0.5 * _PARTS)
        return float(((shares - 1 / _PARTS) * np.log(shares * _PARTS)).sum())


class Traffic(Record):
    """What a threshold was set on: kept beside it, for whoever watches traffic."""

    reference: Reference
    transfer: Transfer | None = None
    """None for one source."""

    def save(self, folder: Path) -> None:
        write_json(folder / TRAFFIC, self.model_dump(mode="json"))


def load_traffic(folder: Path) -> Traffic | None:
    """What `Traffic.save` wrote; None where nothing was kept. Raises InputError for a damaged file."""
    file = folder / TRAFFIC
    return read_record(file, Traffic, "Calibrate again") if file.is_file() else None


class Drift:
    """The latest scores of traffic beside those that the threshold was set on."""

    def __init__(self, reference: Reference, window: int | None = _WINDOW) -> None:
        """`window` is how many of the latest scores count; None counts all."""
        self._reference, self._counts = reference, [0] * _PARTS
        self._parts: deque[int] = deque()
        self._window = window

    def add(self, *scores: float | None) -> None:
        """Scores as they come; None is unscored and tells nothing."""
        for score in scores:
            if score is None:
                continue
            self._parts.append(self._reference.part(score))
            self._counts[self._parts[-1]] += 1
            if self._window is not None and len(self._parts) > self._window:
                self._counts[self._parts.popleft()] -= 1

    @property
    def seen(self) -> int:
        return len(self._parts)

    @property
    def index(self) -> float | None:
        """None until enough was seen."""
        return self._reference.index(self._counts) if self.seen >= FEWEST_SEEN else None

    @property
    def drifted(self) -> bool:
        """Whether the threshold rests on traffic of another kind."""
        return (self.index or 0.0) >= DRIFT_LIMIT
