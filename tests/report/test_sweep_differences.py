"""Differences between defences: by hand, paired where there is a pairing, and told apart only beyond the interval."""

from __future__ import annotations

import math

import pytest

from forethought.evals.metrics import Figure
from forethought.report.sweep_figures import DefenceMeans, Difference, SweepRow, best, by_defence, paired_to, to_best
from tests.report.sweep_example import figure, missing_row, sweep_row

NAME = "youden_unseen"


def _diff(name: str, value: float, low: float | None, high: float | None, n: int = 80) -> Figure:
    return Figure(name=name, value=value, low=low, high=high, n=n, unit="difference")


def _means(*rows: SweepRow) -> list[DefenceMeans]:
    return by_defence(rows)


def test_two_intervals_are_joined_as_of_two_samples() -> None:
    uneven = Figure(name=NAME, value=0.5, low=0.4, high=0.53, n=100, unit="youden_j")
    means = _means(sweep_row("scot", 0.7, 0.1), sweep_row("refusal", more=(uneven,)), missing_row("r2d2", "none"))
    first = best(means, NAME)
    assert first is not None
    assert first.label == "scot"
    [found] = to_best(means, NAME)
    # scot: 0.6, 0.55 to 0.65.
    assert (found.label, found.paired, found.told_apart) == ("refusal", False, True)
    assert found.figure.value == pytest.approx(-0.1)
    assert found.figure.low == pytest.approx(-0.1 - math.hypot(0.1, 0.05))
    assert found.figure.high == pytest.approx(-0.1 + math.hypot(0.03, 0.05))


def test_neighbours_are_not_told_apart() -> None:
    found = to_best(
        _means(sweep_row("far", 0.4), sweep_row("scot", 0.7), sweep_row("near", 0.66), sweep_row("equal", 0.7)), NAME
    )
    assert [(one.label, one.told_apart) for one in found] == [("equal", False), ("near", False), ("far", True)]


def test_pairing_is_preferred_and_turned_where_needed() -> None:
    ours = _diff("diff_youden_unseen_scot_vs_refusal", 0.04, 0.01, 0.08)
    theirs = _diff("diff_youden_unseen_near_vs_scot", -0.02, -0.03, -0.01)
    means = _means(
        sweep_row("scot", 0.7, more=(ours,)), sweep_row("refusal", 0.66), sweep_row("near", 0.68, more=(theirs,))
    )
    by_label = {one.label: one for one in to_best(means, NAME)}
    turned = by_label["refusal"]
    assert (turned.figure.value, turned.figure.low, turned.figure.high) == (-0.04, -0.08, -0.01)
    assert turned.paired
    assert turned.told_apart
    assert by_label["near"].figure.value == -0.02
    assert by_label["near"].paired


def test_two_budgets_of_one_defence_are_not_paired_by_name() -> None:
    odd = _diff("diff_youden_unseen_scot_vs_scot", 0.5, 0.4, 0.6)
    means = _means(sweep_row("scot", 0.7, more=(odd,)), sweep_row("scot", 0.6, budget=20_000, more=(odd,)))
    [found] = to_best(means, NAME)
    assert not found.paired


def test_without_an_interval_nothing_is_told() -> None:
    bare = figure(NAME, 0.9, None, unit="youden_j")
    [found] = to_best(_means(sweep_row("scot", more=(bare,)), sweep_row("refusal", 0.1)), NAME)
    assert found.figure.low is None
    assert not found.told_apart


def test_nothing_to_compare() -> None:
    assert to_best(_means(missing_row("r2d2", "none")), NAME) == []
    assert to_best(_means(sweep_row("scot", 0.5)), NAME) == []


def test_paired_to_the_yardstick_takes_the_defence_of_the_row() -> None:
    ending = "scot_vs_refusal_augmented"
    rows = [
        sweep_row("scot", 0.7, seed=seed, more=(
            _diff(f"diff_youden_unseen_{ending}", value, value - 0.1, value + 0.1),
            Figure(name=f"p_youden_unseen_{ending}", value=p, unit="p"),
            _diff("diff_asr_direct_scot_vs_base", -0.5, -0.6, -0.4),
        ))
        for seed, value, p in ((0, 0.2, 0.01), (1, 0.2, 0.04))
    ]  # fmt: skip
    # In a row of another defence it is not that defence's difference.
    stray = sweep_row("dpo", 0.5, more=(_diff(f"diff_asr_direct_{ending}", 0.1, 0.0, 0.2),))
    [found] = paired_to(_means(*rows, stray))
    assert (found.label, found.name, found.paired, found.p) == ("scot", "youden_unseen", True, 0.04)
    assert found.figure.value == pytest.approx(0.2)
    assert found.told_apart


@pytest.mark.parametrize(("low", "high", "told"), [(0.0, 0.2, False), (0.01, 0.2, True), (-0.2, -0.01, True)])
def test_an_interval_that_touches_nothing_tells(low: float, high: float, told: bool) -> None:
    one = Difference(label="scot", name=NAME, figure=_diff("x", 0.1, low, high), paired=True)
    assert one.told_apart is told
