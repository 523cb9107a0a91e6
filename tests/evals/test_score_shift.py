"""How far a disguise moves scores, by hand."""

from __future__ import annotations

import math

import pytest

from forethought.evals.score_shift import score_shift, spread


def test_a_shift_is_of_the_same_request_in_the_units_of_undisguised_scores() -> None:
    plain, harmless = {"a": 4.0, "b": 2.0}, {"c": -2.0, "d": -4.0}
    scale = spread(plain, harmless)
    assert scale == pytest.approx(math.sqrt((16 + 4 + 4 + 16) / 4))
    # a moves by -2 in one style and -4 in the other, b by 0 in the first alone; nobody asked "e" as it is.
    found = score_shift(plain, [{"a": 2.0, "b": 2.0}, {"a": 0.0, "e": -9.0}], scale)
    assert found.value == pytest.approx((-2.0 + 0.0 - 4.0) / 3 / scale)
    assert (found.n, found.unit) == (3, "standard deviations")
    assert found.low is not None
    assert found.low < found.value < (found.high or 0.0)


def test_without_a_spread_or_a_common_request_nothing_is_measured() -> None:
    assert spread({}, {}) == 0.0
    for found in (score_shift({"a": 1.0}, [{"a": 2.0}], 0.0), score_shift({"a": 1.0}, [{"b": 2.0}], 1.0)):
        assert math.isnan(found.value)
        assert found.n == 0
