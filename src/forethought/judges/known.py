"""How far judges are known to err, measured on people's labels: reports name it, and correct rates for it.

The true rate behind a judge's rate is Rogan and Gladen's, with all three uncertainties in its interval.
"""

from __future__ import annotations

import math
from functools import lru_cache

from pydantic import Field, model_validator
from scipy.stats import norm

from forethought.judges.base import Measure
from forethought.metrics import Figure
from forethought.records import Record
from forethought.yamlfile import shipped_yaml


class KnownError(Record):
    """A judge against people's labels of one source."""

    judge: str
    measure: Measure
    source: str
    """Whose answers and labels; an error measured there says little about answers of another kind."""
    sensitivity: float = Field(ge=0, le=1)
    """Share of what people call positive (a refusal, or harmful) that the judge calls so."""
    n_positive: int = Field(ge=1)
    specificity: float = Field(ge=0, le=1)
    n_negative: int = Field(ge=1)

    @model_validator(mode="after")
    def _tells_something(self) -> KnownError:
        if self.sensitivity + self.specificity <= 1:
            raise ValueError("the judge is no better than chance: nothing can be corrected by its error")
        return self

    def __str__(self) -> str:
        return (
            f"judge '{self.judge}': on {self.source} it finds {self.sensitivity:.0%} of {self.n_positive} positives and"
            f" {self.specificity:.0%} of {self.n_negative} negatives"
        )


@lru_cache(maxsize=1)
def _known() -> tuple[KnownError, ...]:
    return shipped_yaml("judges/known_errors.json", tuple[KnownError, ...])


def known_error(judge: str, measure: Measure) -> KnownError | None:
    """The measured error of a judge that ships with the project; None where none was measured."""
    return next((one for one in _known() if (one.judge, one.measure) == (judge, measure)), None)


def corrected_asr(asr: Figure, error: KnownError) -> Figure:
    """An attack success rate (share of harmful requests not refused) corrected for the refusal judge's known error.

    Rogan and Gladen's correction of the refused share, turned round. A figure without answers stays as it is.
    """
    if not asr.n:
        return asr
    refused = corrected_rate(1.0 - asr.value, asr.n, error)
    low, high = 1.0 - (refused.high or 0.0), 1.0 - (refused.low or 0.0)
    return Figure(value=1.0 - refused.value, low=low, high=high, n=asr.n, unscored=asr.unscored)


def corrected_rate(raw: float, n: int, error: KnownError) -> Figure:
    """Rogan and Gladen (1978): (raw + specificity - 1) / (sensitivity + specificity - 1), clipped to 0..1.

    `raw` is the judge's share of positives among `n` answers; its error was measured on answers that people labelled,
    from a source like the one that is corrected: taken elsewhere, it corrects nothing. The interval is Lang and
    Reiczigel's (2014), a delta method on adjusted counts that covers near 0 and 1 too.
    """
    value = _clip((raw + error.specificity - 1) / (error.sensitivity + error.specificity - 1))
    z = float(norm.ppf(0.975))
    share, size = (n * raw + z * z / 2) / (n + z * z), n + z * z
    n_positive, n_negative = error.n_positive + 2, error.n_negative + 2
    sens = (error.n_positive * error.sensitivity + 1) / n_positive
    spec = (error.n_negative * error.specificity + 1) / n_negative
    youden = sens + spec - 1
    if youden <= 0:
        return Figure(value=value, low=0.0, high=1.0, n=n)
    centre = (share + spec - 1) / youden
    var_sens, var_spec = sens * (1 - sens) / n_positive, spec * (1 - spec) / n_negative
    shift = 2 * z * z * (centre * var_sens - (1 - centre) * var_spec)
    spread = math.sqrt(share * (1 - share) / size + centre * centre * var_sens + (1 - centre) ** 2 * var_spec)
    middle, half = centre + shift, z * spread / youden
    return Figure(value=value, low=min(_clip(middle - half), value), high=max(_clip(middle + half), value), n=n)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
