"""Unscored answers as bounds, and the gate."""

from __future__ import annotations

import math

import pytest

from forethought.measure.curves import bounded_mean, too_many_unscored
from tests.judged import judged_one, request_of


def test_bounds_by_hand() -> None:
    assert bounded_mean([[True, False, None, None]]) == (0.25, 0.75)
    assert bounded_mean([[True, False]]) == (0.5, 0.5)
    assert bounded_mean([[None]]) == (0.0, 1.0)
    assert all(math.isnan(end) for end in bounded_mean([[]]))


def test_bounds_of_a_mean_weigh_cells_alike() -> None:
    assert bounded_mean([[True, None], [False] * 8, []]) == (0.25, 0.5)
    assert math.isnan(bounded_mean([])[0])


@pytest.mark.parametrize(("unscored", "stopped"), [(1, False), (2, True)])
def test_gate_stops_above_the_limit(unscored: int, stopped: bool) -> None:
    """Of fifty answers one is two in a hundred, which is the limit; two are above it."""
    judged = [
        judged_one(request_of(f"request {place}", True), None if place < unscored else True, ("direct",))
        for place in range(50)
    ]
    assert (too_many_unscored(judged) == {"direct": unscored / 50}) is stopped
    assert bool(too_many_unscored(judged)) is stopped


def test_gate_looks_at_each_cell() -> None:
    """One cell of failures among many answers: the overall share would hide it."""
    good = [judged_one(request_of(f"request {place}", True), True, ("direct",)) for place in range(200)]
    bad = [judged_one(request_of("other", True), None, ("twin",), failed=True)]
    assert too_many_unscored([*good, *bad]) == {"twin": 1.0}
