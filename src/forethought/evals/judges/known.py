"""How far judges are known to err, measured on people's labels: reports name it, and correct rates for it."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources

from forethought.evals.judges.base import Measure
from forethought.evals.judges.corrected import corrected_rate
from forethought.evals.metrics import Figure
from forethought.records import Record


class KnownError(Record):
    """A judge against people's labels of one source."""

    judge: str
    measure: Measure
    source: str
    """Whose answers and labels; an error measured there says little about answers of another kind."""
    sensitivity: float
    """Share of what people call positive (a refusal, or harmful) that the judge calls so."""
    n_positive: int
    specificity: float
    n_negative: int

    def __str__(self) -> str:
        return (
            f"judge '{self.judge}': on {self.source} it finds {self.sensitivity:.0%} of {self.n_positive} positives and"
            f" {self.specificity:.0%} of {self.n_negative} negatives"
        )


@lru_cache(maxsize=1)
def _known() -> tuple[KnownError, ...]:
    file = resources.files("forethought").joinpath("evals/judges/known_errors.json")
    return tuple(KnownError.model_validate(row) for row in json.loads(file.read_text(encoding="utf-8")))


def known_error(judge: str, measure: Measure) -> KnownError | None:
    """The measured error of a judge that ships with the project; None where none was measured."""
    return next((one for one in _known() if (one.judge, one.measure) == (judge, measure)), None)


def corrected_asr(asr: Figure, error: KnownError) -> Figure:
    """An attack success rate (share of harmful requests not refused) corrected for the refusal judge's known error.

    Rogan and Gladen's correction of the refused share, turned round. A figure without answers stays as it is.
    """
    if not asr.n:
        return asr
    refused = corrected_rate(
        1.0 - asr.value, asr.n, error.sensitivity, error.n_positive, error.specificity, error.n_negative
    )
    low, high = 1.0 - (refused.high or 0.0), 1.0 - (refused.low or 0.0)
    return Figure(value=1.0 - refused.value, low=low, high=high, n=asr.n, unscored=asr.unscored)
