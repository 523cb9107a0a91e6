"""Detectable differences against Connor's values."""

from __future__ import annotations

import pytest

from forethought.evals.power import detectable, detectable_paired


def test_paired_by_hand_and_back() -> None:
    # (1.960 sqrt(.2) + .8416 sqrt(.2 - .01))^2 / .01 = 154.6.
    assert detectable_paired(0.2, 155) == pytest.approx(0.1, abs=2e-4)
    assert detectable_paired(0.2, 600) == pytest.approx(0.05, abs=2e-3)


def test_paired_needs_as_many_discordant_pairs_as_the_difference() -> None:
    """(1.960 + .8416 sqrt(1 - d))^2 = 100 d at d = .0764: no smaller however few pairs differ now."""
    assert detectable_paired(0.0, 100) == pytest.approx(0.0764, abs=5e-4)
    assert detectable_paired(0.02, 100) == pytest.approx(0.0764, abs=5e-4)
    assert detectable_paired(0.3, 100) == pytest.approx(0.152, abs=2e-3)


def test_paired_says_when_nothing_can_show() -> None:
    assert detectable_paired(0.3, 3) is None
    assert detectable_paired(0.3, 0) is None


def test_any_estimate_by_its_standard_error() -> None:
    assert detectable(0.1) == pytest.approx((1.960 + 0.8416) * 0.1, abs=1e-4)
