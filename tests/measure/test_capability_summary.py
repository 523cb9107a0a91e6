"""Figures of a capability run against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from forethought.measure.capability.questions import Question
from forethought.measure.capability.summary import (
    ItemScore,
    accuracy,
    chance_level,
    is_informative,
    paired_difference,
    set_figures,
)
from forethought.metrics import Figure, share


def items(*correct: bool | None, refused: tuple[int, ...] = ()) -> list[ItemScore]:
    return [ItemScore(id=str(n), correct=one, refused=n in refused) for n, one in enumerate(correct)]


def test_chance_is_the_mean_share_of_right_options() -> None:
    two, five = (
        Question(text="a", choices=("x", "y"), right=(0,)),
        Question(text="b", choices=tuple("abcde"), right=(0, 1)),
    )
    assert chance_level([two, two, five]) == pytest.approx((0.5 + 0.5 + 0.4) / 3)
    assert chance_level([Question(text="c", answers=("7",))]) is None


def test_a_base_at_chance_is_uninformative() -> None:
    at_chance, above = share([True] * 30 + [False] * 70), share([True] * 40 + [False] * 60)
    assert at_chance.low is not None
    assert at_chance.low < 0.25
    assert not is_informative(at_chance, 0.25)
    assert is_informative(above, 0.25)
    # Without options there is no chance level: two right of a hundred leave nothing to lose.
    assert not is_informative(share([True] * 2 + [False] * 98), None)
    assert is_informative(share([True] * 40 + [False] * 60), None)
    assert not is_informative(Figure(value=math.nan, n=0), 0.25)


def test_refused_is_wrong_and_unscored_is_neither() -> None:
    figure = accuracy(items(True, True, False, None, refused=(1,)))
    assert figure.value == pytest.approx(1 / 3)
    assert (figure.n, figure.unscored) == (3, 1)


def test_paired_difference_by_hand() -> None:
    """Ten items: three lost, one gained. McNemar exact: P(at most 1 of 4) twice = 2 * 5/16. Bonett-Price by hand."""
    base = items(*[True] * 3, False, *[True] * 4, *[False] * 2)
    defended = items(*[False] * 3, True, *[True] * 4, *[False] * 2)
    difference, p = paired_difference(base, defended)
    assert difference.n == 10
    assert difference.value == pytest.approx(-0.2)
    assert p == pytest.approx(10 / 16)
    up, down = 2 / 12, 4 / 12
    half = 1.959964 * math.sqrt((up + down - (up - down) ** 2) / 12)
    assert difference.low == pytest.approx(up - down - half, abs=1e-6)
    assert difference.high == pytest.approx(up - down + half, abs=1e-6)


def test_pairs_need_both_scores_and_a_refusal_is_a_score() -> None:
    difference, _ = paired_difference(items(True, None, True), items(None, True, True, refused=(2,)))
    assert (difference.n, difference.unscored, difference.value) == (1, 2, -1.0)
    nothing, p = paired_difference(items(None), items(None))
    assert math.isnan(nothing.value)
    assert p == 1.0


def test_the_same_scores_differ_by_nothing() -> None:
    same = items(*[True] * 20, *[False] * 10)
    difference, p = paired_difference(same, same)
    assert (difference.value, p) == (0.0, 1.0)
    assert difference.low is not None
    assert difference.low < 0 < (difference.high or 0)  # no certainty from thirty items


def test_bits_and_words_leave_refused_items_out_and_count_them() -> None:
    base = [
        ItemScore(id="a", bits_per_byte=1.0),
        ItemScore(id="b", bits_per_byte=2.0),
        ItemScore(id="c", bits_per_byte=9.0),
    ]
    defended = [
        ItemScore(id="a", bits_per_byte=1.5),
        ItemScore(id="b", bits_per_byte=2.1),
        ItemScore(id="c", refused=True),
    ]
    figures = {figure.name: figure for figure in set_figures("x", [], {"base": base, "defended": defended})}
    assert figures["capability_bits_x_base"].value == pytest.approx(4.0)
    gap = figures["capability_bits_difference_x"]
    assert gap.value == pytest.approx(0.3)
    assert (gap.n, gap.unscored) == (2, 1)
    written = [ItemScore(id="a", answer="one two three"), ItemScore(id="b", refused=True)]
    (words,) = (one for one in set_figures("x", [], {"base": written}) if one.name == "capability_words_x_base")
    assert (words.value, words.n, words.unscored, words.low) == (3.0, 1, 1, None)


def test_names_of_figures() -> None:
    questions = [Question(text=str(n), choices=("x", "y"), right=(0,)) for n in range(4)]
    base, defended = items(True, True, True, False), items(True, True, False, False, refused=(2,))
    figures = {figure.name: figure for figure in set_figures("arc", questions, {"base": base, "defended": defended})}
    assert figures["capability_arc_base"].value == 0.75
    assert figures["capability_arc_defended"].value == 0.5
    assert figures["capability_refused_arc_defended"].value == 0.25
    assert figures["capability_chance_arc"].value == 0.5
    assert figures["capability_difference_arc"].value == -0.25
    assert figures["capability_mcnemar_p_arc"].value == 1.0
    assert not [name for name in figures if "bits" in name or "words" in name]
