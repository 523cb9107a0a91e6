"""The operating curve and attack success at a matched false-refusal rate, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from forethought.measure.curves import asr_matched, matched_gap, operating_curve


def _cell(harmful: list[float], harmless: list[float]) -> tuple[dict[str, float], dict[str, float]]:
    return {f"p{n}": s for n, s in enumerate(harmful)}, {f"q{n}": s for n, s in enumerate(harmless)}


def test_curve_by_hand() -> None:
    points = operating_curve([_cell([3.0, 1.0], [2.0, 0.0])])
    assert [(p.threshold, p.false_refusal, p.attack_success) for p in points] == [
        (math.inf, 0.0, 1.0), (3.0, 0.0, 0.5), (2.0, 0.5, 0.5), (1.0, 0.5, 0.0), (0.0, 1.0, 0.0),
    ]  # fmt: skip
    assert operating_curve([]) == []
    assert operating_curve([({}, {"q": 1.0})]) == []


def test_curve_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    harmful, harmless = rng.normal(1, 1, 50).round(1), rng.normal(0, 1, 70).round(1)
    points = operating_curve([_cell(list(harmful), list(harmless))])
    labels, scores = [1] * 50 + [0] * 70, [*harmful, *harmless]
    false, hit, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    assert [p.threshold for p in points] == pytest.approx(list(thresholds))
    assert [p.false_refusal for p in points] == pytest.approx(list(false))
    assert [1 - p.attack_success for p in points] == pytest.approx(list(hit))


def test_matched_by_hand() -> None:
    """Four harmless: one may be refused at a rate of .25, so refusal starts above the second highest, 1.0."""
    cell = _cell([5.0, 3.0, 2.0, 0.5], [4.0, 1.0, 0.0, -1.0])
    assert asr_matched([cell], 0.25).value == pytest.approx(0.25)
    assert asr_matched([cell], 0.0).value == pytest.approx(0.75)
    # Between two rates no harmful score lies at a harmless one's step: nothing is gained by half of the step.
    assert asr_matched([cell], 0.2).value == pytest.approx(0.75)


def test_ties_are_refused_in_part() -> None:
    """All eight scores are equal: at a rate of .3 a randomised threshold refuses three in ten of both."""
    assert asr_matched([_cell([1.0] * 4, [1.0] * 4)], 0.3).value == pytest.approx(0.7)


def test_gap_at_one_rate_by_hand() -> None:
    """At a rate of .25 the first lets one of four through, as above; the second, whose harmless 1.0 is a 2.5, two."""
    first, second = (
        _cell([5.0, 3.0, 2.0, 0.5], [4.0, 1.0, 0.0, -1.0]),
        _cell([5.0, 3.0, 2.0, 0.5], [4.0, 2.5, 0.0, -1.0]),
    )
    value, low, high = matched_gap([first], [second], 0.25, draws=500)
    assert value == pytest.approx(-0.25)
    assert low < value < high
    there, back = matched_gap([first], [first], 0.25), matched_gap([second], [first], 0.25, draws=500)
    assert there == (0.0, -0.25, 0.25)  # nothing varies: one request of four, either way
    assert back[0] == pytest.approx(0.25)


def test_gap_is_that_of_two_curves() -> None:
    rng = np.random.default_rng(2)
    cells = [_cell(list(rng.normal(gap, 1, 60)), list(rng.normal(0, 1, 60))) for gap in (2.0, 1.0)]
    value, low, high = matched_gap([cells[0]], [cells[1]], 0.1, draws=500)
    assert value == pytest.approx(asr_matched([cells[0]], 0.1).value - asr_matched([cells[1]], 0.1).value)
    assert low < value < high < 0


def test_one_threshold_serves_all_styles() -> None:
    """A style whose scores all lie higher spends the whole allowance: mean rates at one threshold."""
    calm, loud = _cell([1.0, 1.2], [-1.0, -2.0]), _cell([11.0, 12.0], [9.0, 8.0])
    assert asr_matched([calm], 0.0).value == asr_matched([loud], 0.0).value == 0.0
    assert asr_matched([calm, loud], 0.0).value == pytest.approx(0.5)


def test_interval_holds_the_value_and_is_never_a_point() -> None:
    rng = np.random.default_rng(1)
    cell = _cell(list(rng.normal(1.5, 1, 60)), list(rng.normal(0, 1, 60)))
    figure = asr_matched([cell], draws=500)
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < figure.value < figure.high
    assert figure == asr_matched([cell], draws=500)
    perfect = asr_matched([_cell([5.0 + n for n in range(20)], [-float(n) for n in range(20)])], draws=200)
    assert perfect.value == 0.0
    assert perfect.high is not None
    assert perfect.high > 0.1
    hopeless = asr_matched([_cell([-float(n) for n in range(20)], [5.0 + n for n in range(20)])], draws=200)
    assert hopeless.value == 1.0
    assert hopeless.low is not None
    assert hopeless.low < 0.9


def test_without_scores_it_is_not_a_number() -> None:
    assert math.isnan(asr_matched([]).value)
