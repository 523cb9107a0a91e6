"""The known error of the judges that reports use, and rates corrected for it."""

from __future__ import annotations

import pytest

from forethought.judges.known import KnownError, corrected_asr, known_error
from forethought.metrics import Figure, share

ERROR = KnownError(
    judge="j", measure="refused", source="s", sensitivity=0.8, n_positive=1000, specificity=0.9, n_negative=1000
)


def test_the_judge_that_reports_use_has_a_measured_error() -> None:
    error = known_error("rules", "refused")
    assert error is not None
    assert error.n_positive > 100
    assert "rules" in str(error)
    assert known_error("nobody", "refused") is None


def test_a_rate_by_hand() -> None:
    """60 of 100 refused by the judge: (.6 + .9 - 1) / (.8 + .9 - 1) = 5/7 refused, so 2/7 succeed."""
    raw = share([False] * 60 + [True] * 40)
    found = corrected_asr(raw, ERROR)
    assert found.value == pytest.approx(2 / 7)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 2 / 7 < found.high
    assert found.n == 100


def test_an_impossible_rate_is_clipped_and_nothing_stays_nothing() -> None:
    everything_refused = share([False] * 50)
    assert corrected_asr(everything_refused, ERROR).value == 0.0
    nothing = Figure(value=float("nan"), n=0, unscored=3)
    assert corrected_asr(nothing, ERROR) == nothing
