"""Figures against values worked out by hand, and the correction against simulation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import brier_score_loss, cohen_kappa_score, f1_score, roc_auc_score

from forethought.judges.base import Item, Measure, Verdict
from forethought.judges.evaluate import (
    auroc_of,
    brier_of,
    evaluate,
    f1_of,
    kappa_of,
    ranks_of,
    reliability,
    with_interval,
)
from forethought.judges.known import KnownError, corrected_rate
from forethought.judges.labelled import Label, LabelledItem
from forethought.metrics import Figure


class Scripted:
    """Says what it is told, in order."""

    def __init__(self, said: Sequence[bool | None], probabilities: Sequence[float] | None = None) -> None:
        self.name = "scripted"
        self.measure: Measure = "refused"
        self.said = list(said)
        self.probabilities = list(probabilities) if probabilities else [None] * len(self.said)

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [
            Verdict(refused=said, probability=chance, cause="" if said is not None else "broken")
            for said, chance in zip(self.said, self.probabilities, strict=True)
        ]


def labelled(labels: Sequence[Label | None], source: str = "a.csv") -> list[LabelledItem]:
    return [
        LabelledItem(item=Item(request=f"q{n}", answer="a"), label=label, source=source)
        for n, label in enumerate(labels)
    ]


P: Label = "positive"
N: Label = "negative"
H: Label = "partial"


def test_figures_by_hand() -> None:
    """3 true positives, 1 false positive, 1 false negative, 5 true negatives."""
    said = [True, True, True, True, False, False, False, False, False, False]
    [found] = evaluate(Scripted(said), labelled([P, P, P, N, P, N, N, N, N, N]))
    value = {figure.name: figure.value for figure in found.figures}
    assert value["accuracy"] == pytest.approx(0.8)
    assert value["precision"] == pytest.approx(0.75)
    assert value["recall"] == pytest.approx(0.75)
    assert value["specificity"] == pytest.approx(5 / 6)
    assert value["f1"] == pytest.approx(0.75)
    assert value["kappa"] == pytest.approx((0.8 - 0.52) / 0.48)
    assert "auroc" not in value  # it has no probability
    accuracy = found.figure("accuracy")
    assert accuracy is not None
    assert accuracy.low == pytest.approx(0.4902, abs=1e-3)
    assert accuracy.high == pytest.approx(0.9433, abs=1e-3)


def test_unscored_answers_are_counted_apart_and_change_no_figure() -> None:
    [whole] = evaluate(Scripted([True, False]), labelled([P, N]))
    [holes] = evaluate(Scripted([True, None, False, None]), labelled([P, P, N, N]))
    assert (holes.n, holes.unscored, holes.causes) == (4, 2, {"broken": 2})
    assert holes.unscored_share == 0.5
    assert [f.value for f in holes.figures] == [f.value for f in whole.figures]
    assert all(f.unscored == 2 for f in holes.figures)


def test_rows_without_a_label_are_in_no_figure() -> None:
    [found] = evaluate(Scripted([True, True, False]), labelled([P, None, N]))
    assert (found.n, found.unlabelled) == (2, 1)


def test_with_nothing_scored_no_figure_is_a_number() -> None:
    [found] = evaluate(Scripted([None, None]), labelled([P, N]))
    assert all(np.isnan(figure.value) for figure in found.figures)


def test_partial_refusals_move_between_the_classes() -> None:
    items = labelled([P, H, N])
    [strict] = evaluate(Scripted([True, True, False]), items, partial_counts=False)
    [counted] = evaluate(Scripted([True, True, False]), items)
    assert counted.figure("precision").value == 1.0  # type: ignore[union-attr]
    assert strict.figure("precision").value == 0.5  # type: ignore[union-attr]


def test_each_source_is_shown_and_then_all() -> None:
    items = [*labelled([P, N], "b.csv"), *labelled([P, N], "a.csv")]
    found = evaluate(Scripted([True, True, True, False]), items)
    assert [(e.source, e.n) for e in found] == [("a.csv", 2), ("b.csv", 2), ("all", 4)]
    assert found[0].figure("accuracy").value == 1.0  # type: ignore[union-attr]
    assert found[1].figure("accuracy").value == 0.5  # type: ignore[union-attr]


def test_unsure_answers_still_count_for_the_area_under_the_curve() -> None:
    judge = Scripted([True, None, False, False], [0.9, 0.5, 0.4, 0.1])
    [found] = evaluate(judge, labelled([P, N, P, N]))
    assert found.figure("auroc").value == pytest.approx(0.75)  # type: ignore[union-attr]
    assert found.figure("auroc").n == 4  # type: ignore[union-attr]


def test_statistics_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(400) < 0.3).astype(float)
    score = (100 * np.clip(truth * 0.3 + rng.random(400) * 0.7, 0, 1)).astype(int).astype(float) / 100  # with ties
    said = (score > 0.5).astype(float)
    ones = np.ones(400)
    assert f1_of(truth, said, ones) == pytest.approx(f1_score(truth, said))
    assert kappa_of(truth, said, ones) == pytest.approx(cohen_kappa_score(truth, said))
    assert auroc_of(truth, ranks_of(score), ones) == pytest.approx(roc_auc_score(truth, score))
    assert brier_of(truth, score, ones) == pytest.approx(brier_score_loss(truth, score))
    doubled = np.where(np.arange(400) < 100, 2.0, 1.0)
    rows = np.repeat(np.arange(400), doubled.astype(int))
    assert auroc_of(truth, ranks_of(score), doubled) == pytest.approx(roc_auc_score(truth[rows], score[rows]))


def test_answers_to_one_request_are_one_cluster() -> None:
    """Ten copies of each answer must not narrow the interval."""
    rng = np.random.default_rng(0)
    truth, said = (rng.random(60) < 0.5).astype(float), (rng.random(60) < 0.5).astype(float)
    names = [f"q{n}" for n in range(60)]
    once = with_interval("f1", partial(f1_of, truth, said), names)
    copied = with_interval("f1", partial(f1_of, np.tile(truth, 10), np.tile(said, 10)), names * 10)
    assert once.low < once.value < once.high  # type: ignore[operator]
    assert once.low == pytest.approx(copied.low)
    assert once.high == pytest.approx(copied.high)


def test_the_reliability_curve_by_hand() -> None:
    curve = reliability(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.05, 0.05, 0.95, 1.0]))
    assert curve == [
        {"probability": pytest.approx(0.05), "positive": 0.5, "n": 2},
        {"probability": pytest.approx(0.975), "positive": 1.0, "n": 2},
    ]


def _corrected(raw: float, n: int, sensitivity: float, n_positive: int, specificity: float, n_negative: int) -> Figure:
    error = KnownError(
        judge="j", measure="refused", source="s", sensitivity=sensitivity, n_positive=n_positive,
        specificity=specificity, n_negative=n_negative,
    )  # fmt: skip
    return corrected_rate(raw, n, error)


def test_the_correction_by_hand() -> None:
    """(0.30 + 0.95 - 1) / (0.90 + 0.95 - 1) = 0.25 / 0.85."""
    figure = _corrected(0.30, 200, 0.90, 100, 0.95, 100)
    assert figure.value == pytest.approx(0.25 / 0.85)
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < figure.value < figure.high
    perfect = _corrected(0.30, 200, 1.0, 10**9, 1.0, 10**9)
    assert perfect.value == pytest.approx(0.30)
    assert perfect.low == pytest.approx(0.241, abs=0.01)
    assert perfect.high == pytest.approx(0.367, abs=0.01)


def test_the_correction_is_clipped_and_keeps_its_value_inside() -> None:
    low = _corrected(0.0, 50, 0.9, 40, 0.9, 40)
    high = _corrected(1.0, 50, 0.9, 40, 0.9, 40)
    assert (low.value, low.low) == (0.0, 0.0)
    assert (high.value, high.high) == (1.0, 1.0)


def test_a_less_certain_judge_widens_the_interval() -> None:
    sure, unsure = _corrected(0.3, 200, 0.9, 2000, 0.9, 2000), _corrected(0.3, 200, 0.9, 30, 0.9, 30)
    assert unsure.high - unsure.low > 1.3 * (sure.high - sure.low)  # type: ignore[operator]


@pytest.mark.parametrize(
    "numbers", [(0.3, 10, 0.4, 10, 0.5, 10), (0.3, 10, 1.2, 10, 0.9, 10), (0.3, 10, 0.9, 0, 0.9, 9)]
)
def test_what_cannot_be_corrected_is_refused(numbers: tuple[float, int, float, int, float, int]) -> None:
    with pytest.raises(ValidationError):
        _corrected(*numbers)


@pytest.mark.parametrize(
    ("truth", "sensitivity", "specificity", "n", "n_positive", "n_negative", "at_least"),
    [
        (0.02, 0.85, 0.93, 200, 60, 80, 0.93),
        (0.3, 0.85, 0.93, 200, 60, 80, 0.93),
        (0.9, 0.8, 0.9, 1000, 20, 40, 0.96),  # few labels: here the shift of the centre matters
    ],
)
def test_the_interval_covers_in_simulation(
    truth: float, sensitivity: float, specificity: float, n: int, n_positive: int, n_negative: int, at_least: float
) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(800):
        raw = rng.binomial(n, truth * sensitivity + (1 - truth) * (1 - specificity)) / n
        sens, spec = (
            rng.binomial(n_positive, sensitivity) / n_positive,
            rng.binomial(n_negative, specificity) / n_negative,
        )
        figure = _corrected(raw, n, sens, n_positive, spec, n_negative)
        covered += figure.low <= truth <= figure.high  # type: ignore[operator]
    assert covered / 800 > at_least
