"""Figures of a sweep: means over seeds and differences between defences by hand, and what may not be mixed or told."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm
from scipy.stats import t as student

from forethought.errors import InputError
from forethought.metrics import Figure
from forethought.research.differences import SAME_REQUESTS, TWO_INTERVALS, best, paired_to, to_best
from forethought.research.figures import sweep_figures
from forethought.research.rows import DefenceMeans, SweepRow, by_base, by_defence, short_count, two_digits
from forethought.research.seeds import mean_of
from tests.report.examples import example, figure, missing_row, sweep_row

NAME = "youden_unseen"


def test_one_seed_keeps_its_own_interval() -> None:
    mean = mean_of([figure("asr_direct", 0.3, 0.1)])
    assert mean is not None
    assert mean.figure.value == 0.3
    assert [mean.figure.low, mean.figure.high] == pytest.approx([0.2, 0.4])
    assert (mean.seeds, mean.least, mean.most) == (1, 0.3, 0.3)


def test_seeds_that_agree_are_no_larger_sample() -> None:
    """They answered the same requests: the interval over requests stays as wide as it was."""
    mean = mean_of([figure("asr_direct", 0.3, 0.1)] * 3)
    assert mean is not None
    assert [mean.figure.low, mean.figure.high] == pytest.approx([0.2, 0.4])
    assert mean.figure.n == 120


def test_seeds_that_differ_widen_the_interval() -> None:
    # No uncertainty over requests: Student's 12.706 with one degree of freedom times 0.01.
    mean = mean_of([figure("youden_unseen", value, 0.0, unit="youden_j") for value in (0.50, 0.52)])
    assert mean is not None
    assert mean.figure.value == pytest.approx(0.51)
    assert (mean.least, mean.most) == (0.50, 0.52)
    assert mean.figure.low == pytest.approx(0.51 - 0.12706, abs=1e-5)
    assert mean.figure.high == pytest.approx(0.51 + 0.12706, abs=1e-5)
    # With both, the variances add up: sd 0.1 over requests, 0.1 over two seeds, so 2 * 0.01, freedom 1 * 2**2.
    requests = 0.1 * 1.959964
    both = mean_of([figure("youden_unseen", value, requests, unit="youden_j") for value in (0.1, 0.3)])
    assert both is not None
    assert both.figure.low is not None
    assert both.figure.low == pytest.approx(0.2 - 2.776445 * math.sqrt(0.02), abs=1e-5)


def test_interval_stays_within_what_a_share_can_be() -> None:
    mean = mean_of([figure("asr_direct", value, 0.05) for value in (0.0, 0.9)])
    assert mean is not None
    assert (mean.figure.low, mean.figure.high) == (0.0, 1.0)


def test_unscored_seed_is_in_no_mean_and_is_counted() -> None:
    lost = Figure(name="asr_gcg", value=math.nan, n=0, unscored=40)
    mean = mean_of([lost, figure("asr_gcg", 0.2, unscored=2)])
    assert mean is not None
    assert mean.scored
    assert (mean.figure.value, mean.seeds, mean.figure.n, mean.figure.unscored) == (0.2, 1, 40, 42)
    nothing = mean_of([lost, lost])
    assert nothing is not None
    assert not nothing.scored
    assert nothing.figure.unscored == 80
    assert mean_of([]) is None


@pytest.mark.parametrize("first", [0, 1])
def test_mean_without_an_interval_has_none(first: int) -> None:
    seeds = [figure("capability", 0.2, None), figure("capability", 0.4)]
    mean = mean_of([seeds[first], seeds[1 - first]])
    assert mean is not None
    assert (mean.figure.low, mean.figure.high) == (None, None)
    assert mean.figure.value == pytest.approx(0.3)


def test_style_youden_is_told_from_its_two_shares() -> None:
    asr = Figure(name="asr_poem", value=0.25, low=0.1, high=0.5, n=20, unscored=1)
    refused = Figure(name="refused_poem", value=0.1, low=0.05, high=0.3, n=18)
    [one] = by_defence([sweep_row("scot", more=(asr, refused))])
    mean = one.style_youden("poem")
    assert mean is not None
    assert mean.figure.low is not None
    assert mean.figure.high is not None
    assert mean.figure.value == pytest.approx(0.65)
    assert mean.figure.low == pytest.approx(0.65 - math.hypot(0.25, 0.2))
    assert mean.figure.high == pytest.approx(0.65 + math.hypot(0.15, 0.05))
    assert (mean.figure.n, mean.figure.unscored) == (38, 1)
    assert one.style_youden("unheard_of") is None


def test_rows_are_grouped_by_base_defence_and_budget() -> None:
    rows = [
        sweep_row("scot", 0.5, budget=20_000), sweep_row("scot", 0.6), sweep_row("scot", 0.7, seed=1),
        sweep_row("scot", 0.1, base="large"), sweep_row("refusal", 0.9),
    ]  # fmt: skip
    found = by_defence(rows)
    assert [(one.base, one.label, len(one.rows)) for one in found] == [
        ("small", "scot, 20k", 1), ("small", "scot, 60k", 2), ("large", "scot", 1), ("small", "refusal", 1),
    ]  # fmt: skip
    assert [(base, [one.label for one in group]) for base, group in by_base(rows).items()] == [
        ("small", ["refusal", "scot, 60k", "scot, 20k"]),
        ("large", ["scot"]),
    ]


def test_best_first_and_what_has_no_youden_last() -> None:
    [group] = by_base(example()).values()
    assert [one.label for one in group] == [
        "scot", "scot_split", "refusal_augmented", "prompt", "continuous_adversarial", "base", "latent_adversarial",
        "r2d2",
    ]  # fmt: skip


def test_a_run_given_twice_is_an_error() -> None:
    with pytest.raises(InputError, match="seed 3 is there twice"):
        by_defence([sweep_row("scot", seed=3), sweep_row("scot", seed=3)])


def test_seed_that_is_missing_leaves_the_others() -> None:
    [one] = by_defence([sweep_row("scot", 0.8, seed=0), missing_row("scot", "ran out of memory", seed=1)])
    assert one.missing == ["seed 1: ran out of memory"]
    assert one.tokens == 57_321
    assert one.minutes == pytest.approx(11.0)
    mean = one.mean("asr_unseen")
    assert mean is not None
    assert mean.seeds == 1
    [none] = by_defence([missing_row("r2d2", "not built")])
    assert (none.missing, none.tokens, none.minutes, none.mean("asr_unseen")) == (["not built"], None, None, None)


def test_numbers_as_people_write_them() -> None:
    assert [short_count(count) for count in (0, 950, 999.6, 57_321, 999_800, 1_234_567)] == [
        "0", "950", "1k", "57k", "1.0M", "1.2M",
    ]  # fmt: skip
    assert [two_digits(value) for value in (-0.001, 0.005, 0.976, -0.25)] == ["0.00", "0.01", "0.98", "-0.25"]


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
    assert (found.of, found.against, found.found.test, found.found.sign) == ("refusal", "scot", TWO_INTERVALS, -1)
    assert found.found.difference == pytest.approx(-0.1)
    assert found.found.low == pytest.approx(-0.1 - math.hypot(0.1, 0.05))
    assert found.found.high == pytest.approx(-0.1 + math.hypot(0.03, 0.05))


def test_neighbours_are_not_told_apart() -> None:
    found = to_best(
        _means(sweep_row("far", 0.4), sweep_row("scot", 0.7), sweep_row("near", 0.66), sweep_row("equal", 0.7)), NAME
    )
    assert [(one.of, one.found.sign) for one in found] == [("equal", 0), ("near", 0), ("far", -1)]


def test_pairing_is_preferred_and_turned_where_needed() -> None:
    ours = _diff("diff_youden_unseen_scot_vs_refusal", 0.04, 0.01, 0.08)
    theirs = _diff("diff_youden_unseen_near_vs_scot", -0.02, -0.03, -0.01)
    means = _means(
        sweep_row("scot", 0.7, more=(ours,)), sweep_row("refusal", 0.66), sweep_row("near", 0.68, more=(theirs,))
    )
    by_label = {one.of: one.found for one in to_best(means, NAME)}
    turned = by_label["refusal"]
    assert (turned.difference, turned.low, turned.high) == (-0.04, -0.08, -0.01)
    assert (turned.test, turned.sign) == (SAME_REQUESTS, -1)
    assert by_label["near"].difference == -0.02
    assert by_label["near"].test == SAME_REQUESTS


def test_two_budgets_of_one_defence_are_not_paired_by_name() -> None:
    odd = _diff("diff_youden_unseen_scot_vs_scot", 0.5, 0.4, 0.6)
    means = _means(sweep_row("scot", 0.7, more=(odd,)), sweep_row("scot", 0.6, budget=20_000, more=(odd,)))
    [found] = to_best(means, NAME)
    assert found.found.test == TWO_INTERVALS


def test_without_an_interval_nothing_is_told() -> None:
    bare = figure(NAME, 0.9, None, unit="youden_j")
    [found] = to_best(_means(sweep_row("scot", more=(bare,)), sweep_row("refusal", 0.1)), NAME)
    assert (found.found.low, found.found.high, found.found.sign) == (-math.inf, math.inf, 0)


def test_nothing_to_compare() -> None:
    assert to_best(_means(missing_row("r2d2", "none")), NAME) == []
    assert to_best(_means(sweep_row("scot", 0.5)), NAME) == []


ENDING = "scot_vs_refusal_augmented"


def _seed(seed: int, p: float, **differences: float) -> SweepRow:
    """A row of scot with differences from refusal training, .06 to each end of their intervals, tested alike."""
    found = [_diff(f"diff_{name}_{ENDING}", value, value - 0.06, value + 0.06) for name, value in differences.items()]
    tests = [Figure(name=f"p_{name}_{ENDING}", value=p, unit="p") for name in differences]
    return sweep_row("scot", 0.7, seed=seed, more=(*found, *tests))


def test_paired_to_the_yardstick_takes_the_defence_of_the_row() -> None:
    elsewhere = _diff("diff_asr_direct_scot_vs_base", -0.5, -0.6, -0.4)
    row = sweep_row("scot", 0.7, more=(*_seed(0, 0.01, youden_unseen=0.2).figures, elsewhere))
    # In a row of another defence it is not that defence's difference.
    stray = sweep_row("dpo", 0.5, more=(_diff(f"diff_asr_direct_{ENDING}", 0.1, 0.0, 0.2),))
    [(of, against, found)] = paired_to(_means(row, stray))
    assert (of, against, found.name) == ("scot", "refusal_augmented", "youden_unseen")
    # Of one row, its own test.
    assert (found.test, found.p_corrected, found.sign) == (SAME_REQUESTS, 0.01, 1)
    assert found.difference == pytest.approx(0.2)


def test_what_each_seed_shows_need_not_hold_for_another() -> None:
    """As happened: two seeds with a p-value of .0015 each, whose interval over seeds held zero."""
    rows = [_seed(seed, 0.0015, youden_unseen=value, asr_direct=-0.2) for seed, value in ((0, 0.25), (1, 0.05))]
    [unsteady, steady] = [one.found for one in paired_to(_means(*rows))]
    # Variance over requests (.06 / 1.96)**2, between seeds .02 / 2, so 1.0937 * .01; 1 * 1.0937**2 degrees of freedom.
    assert unsteady.p == pytest.approx(2 * student.sf(0.15 / math.sqrt(0.010937), 1.0937**2), rel=1e-3)
    assert unsteady.low < 0 < unsteady.high
    # Seeds that agree have the requests' variance alone, as often as there are seeds; the two are corrected together.
    assert steady.p == pytest.approx(2 * norm.sf(0.2 / (0.06 / 1.959964)))
    assert unsteady.p_corrected == unsteady.p
    assert steady.p_corrected == pytest.approx(2 * steady.p)
    figures = {figure.name: figure.value for figure in sweep_figures(rows)}
    assert figures[f"p_youden_unseen_{ENDING}"] == unsteady.p_corrected
    assert figures[f"p_youden_unseen_{ENDING}_small_s0_b60000"] == 0.0015


@pytest.mark.parametrize(
    ("values", "half"),
    [((0.2, 0.1), 0.02), ((0.2, 0.1, 0.15), 0.1), ((-0.3, -0.1, -0.2, -0.2), 0.1), ((0.1,), 0.11)],
)
def test_p_value_and_interval_say_the_same(values: tuple[float, ...], half: float) -> None:
    mean = mean_of([_diff("diff_asr_direct", value, value - half, value + half) for value in values])
    assert mean is not None
    assert mean.figure.low is not None
    assert mean.figure.high is not None
    assert (mean.p < 0.05) == (not mean.figure.low <= 0 <= mean.figure.high)


def test_without_an_interval_or_a_test_there_is_no_p_value() -> None:
    bare = mean_of([_diff("diff_asr_direct", 0.1, None, None)] * 2)
    assert bare is not None
    assert math.isnan(bare.p)
    difference = _diff(f"diff_capability_{ENDING}", 0.1, 0.0, 0.2)
    untested = [sweep_row("scot", seed=seed, more=(difference,)) for seed in (0, 1)]
    assert f"p_capability_{ENDING}" not in {figure.name for figure in sweep_figures(untested)}
    # Everything the same in all seeds, without any spread.
    exact = [mean_of([_diff("diff_asr_direct", value, value, value)] * 2) for value in (0.0, 0.1)]
    assert [one.p for one in exact if one is not None] == [1.0, 0.0]


@pytest.mark.parametrize(("low", "high", "sign"), [(0.0, 0.2, 0), (0.01, 0.2, 1), (-0.2, -0.01, -1)])
def test_an_interval_that_touches_nothing_tells(low: float, high: float, sign: int) -> None:
    ours = _diff("diff_youden_unseen_near_vs_scot", 0.1, low, high)
    [found] = to_best(_means(sweep_row("scot", 0.7), sweep_row("near", 0.6, more=(ours,))), NAME)
    assert found.found.sign == sign
