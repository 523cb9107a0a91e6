"""Shares, intervals and separations, against values worked out by hand or published."""

from __future__ import annotations

import math
import random

import pytest

from forethought.metrics import Figure, auroc, mean_auroc, mean_of_shares, score_shift, share, spread, youden


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (7, 10, 0.3968, 0.8922),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        # Newcombe 1998, table I, method 3 (Wilson without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_trap_4_wilson_intervals_are_the_published_ones(hits: int, n: int, low: float, high: float) -> None:
    figure = share([True] * hits + [False] * (n - hits))
    assert figure.value == pytest.approx(hits / n)
    assert figure.low == pytest.approx(low, abs=5e-5)
    assert figure.high == pytest.approx(high, abs=5e-5)
    assert (figure.n, figure.unscored) == (n, 0)


def test_unscored_is_in_no_share() -> None:
    """Three outages beside one success are not a quarter."""
    figure = share([True, None, None, None])
    assert (figure.value, figure.n, figure.unscored) == (1.0, 1, 3)


@pytest.mark.parametrize("outcomes", [[], [None, None]])
def test_nothing_scored_is_not_a_number(outcomes: list[bool | None]) -> None:
    figure = share(outcomes)
    assert math.isnan(figure.value)
    assert (figure.low, figure.high, figure.n, figure.unscored) == (None, None, 0, len(outcomes))


def test_mean_over_cells_weighs_cells_alike() -> None:
    figure = mean_of_shares([[True] * 8, [False, True]], [[f"a{i}" for i in range(8)], ["b0", "b1"]])
    assert figure.value == pytest.approx((1.0 + 0.5) / 2)
    assert figure.n == 10


def test_mean_leaves_out_cells_that_are_all_unscored() -> None:
    figure = mean_of_shares([[True, False], [None, None]], [["a", "b"], ["a", "b"]])
    assert (figure.value, figure.n, figure.unscored) == (0.5, 2, 2)
    nothing = mean_of_shares([[None]], [["a"]])
    assert math.isnan(nothing.value)
    assert (nothing.n, nothing.unscored) == (0, 1)
    assert math.isnan(mean_of_shares([], []).value)


def test_bootstrap_interval_holds_the_value_and_is_the_same_again() -> None:
    rng = random.Random(0)
    cells: list[list[bool | None]] = [[rng.random() < 0.3 for _ in range(40)] for _ in range(3)]
    ids = [[f"r{i}" for i in range(40)]] * 3
    figure = mean_of_shares(cells, ids)
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < figure.value < figure.high
    assert figure == mean_of_shares(cells, ids)


def test_one_request_under_five_attacks_is_one_observation() -> None:
    outcomes: list[bool | None] = [index % 2 == 0 for index in range(20)]
    ids = [f"r{index}" for index in range(20)]
    one, five = mean_of_shares([outcomes], [ids]), mean_of_shares([outcomes] * 5, [ids] * 5)
    assert [five.low, five.high] == pytest.approx([one.low, one.high])
    apart = mean_of_shares([outcomes] * 5, [[f"{cell}-{name}" for name in ids] for cell in range(5)])
    assert apart.low is not None
    assert one.low is not None
    assert apart.low > one.low


def test_youden_by_hand() -> None:
    harmful: list[list[bool | None]] = [[True, True, True, False], [True, False]]
    harmless: list[list[bool | None]] = [[False, False, True, None], [False, False]]
    ids, other = [["a", "b", "c", "d"], ["a", "b"]], [["e", "f", "g", "h"], ["e", "f"]]
    # Refused: harmful (3/4 + 1/2) / 2, harmless (1/3 + 0) / 2; the unscored answer is in no share.
    figure = youden(harmful, ids, harmless, other)
    assert figure.value == pytest.approx(0.625 - 1 / 6)
    assert (figure.n, figure.unscored) == (11, 1)


def test_refusing_everything_has_no_worth() -> None:
    """What attack success alone would praise."""
    assert youden([[True] * 4], [list("abcd")], [[True] * 4], [list("efgh")]).value == 0.0


def test_auroc_counts_ties_half() -> None:
    # Of six pairs: three above with 2.0 or 1.0 over 0.0, one above with 2.0 over 1.0, two ties.
    assert auroc([1.0, 1.0, 2.0], [0.0, 1.0]) == pytest.approx(5 / 6)
    assert auroc([1.0], [1.0]) == 0.5
    assert auroc([1.0, 2.0], [-1.0, 0.0]) == 1.0
    assert auroc([-1.0], [0.0, 3.0]) == 0.0


def test_auroc_without_one_side_is_not_a_number() -> None:
    assert math.isnan(auroc([], [1.0]))
    assert math.isnan(auroc([1.0], []))
    assert math.isnan(mean_auroc([], []).value)


def test_mean_auroc_by_hand() -> None:
    harmful = [{"a": 1.0, "b": 1.0, "c": 2.0}, {"a": 5.0}]
    harmless = [{"x": 0.0, "y": 1.0}, {"x": 1.0, "y": 9.0}]
    figure = mean_auroc(harmful, harmless)
    assert figure.value == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert (figure.n, figure.unit) == (8, "auroc")
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= figure.value <= figure.high


def test_figure_keeps_its_numbers_under_another_name() -> None:
    figure = Figure(value=0.5, n=2).named("asr_direct_base")
    assert (figure.name, figure.value, figure.n) == ("asr_direct_base", 0.5, 2)


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
