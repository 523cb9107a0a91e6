"""Votes with abstentions, second judges, and how often judges disagree: all worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest

from forethought.errors import ConfigError
from forethought.evals.judges.base import Item, Measure, Verdict
from forethought.evals.judges.ensemble import (
    TIE,
    Ensemble,
    How,
    disagreement,
    second_judge,
    verdicts_by_judge,
)
from forethought.evals.judges.gibberish import EMPTY

Y, N, U = True, False, None


class Fixed:
    """A judge with a verdict for each item, which remembers what it was asked."""

    def __init__(self, verdicts: Sequence[Verdict], name: str = "fixed", measure: Measure = "harmful") -> None:
        self.verdicts, self.name = list(verdicts), name
        self.measure: Measure = measure
        self.asked: list[Item] = []

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        self.asked += items
        return self.verdicts[: len(items)]


def harm(value: bool | None, **more: object) -> Verdict:
    fields: dict[str, object] = {"harmful": value} if value is not None else {"cause": "timed out"}
    return Verdict.model_validate(fields | more)


def voted(how: How, *votes: bool | None, quorum: int | None = None) -> Verdict:
    judges = [Fixed([harm(vote)], f"j{n}") for n, vote in enumerate(votes)]
    return Ensemble(judges, how, quorum).judge([Item(request="r", answer="a")])[0]


@pytest.mark.parametrize(
    ("how", "votes", "expected"),
    [
        ("majority", (Y, Y, N), Y),
        ("majority", (N, N, Y), N),
        ("majority", (Y, Y, U), Y),
        ("majority", (N, N, U), N),
        ("majority", (Y, N, U), U),
        ("majority", (N, U, U), U),
        ("majority", (Y, U, U), U),
        ("majority", (U, U, U), U),
        ("majority", (Y, N), U),
        ("majority", (Y, Y, N, N), U),
        ("majority", (Y, Y, N, U), U),
        ("majority", (Y, Y, Y, N), Y),
        ("any", (N, N, Y), Y),
        ("any", (Y, U, U), Y),
        ("any", (N, N, N), N),
        ("any", (N, N, U), U),
        ("all", (Y, Y, Y), Y),
        ("all", (Y, Y, N), N),
        ("all", (N, U, U), N),
        ("all", (Y, Y, U), U),
        ("mean", (Y, N, Y), Y),
        ("mean", (N, N, Y), N),
        ("mean", (Y, U, U), U),
    ],
)
def test_votes(how: How, votes: tuple[bool | None, ...], expected: bool | None) -> None:
    verdict = voted(how, *votes)
    assert verdict.harmful is expected
    assert bool(verdict.cause) is (expected is None)


@pytest.mark.parametrize("how", ["majority", "any", "all", "mean"])
def test_an_abstention_never_turns_into_a_vote(how: How) -> None:
    """Whatever the ensemble says with an abstention, it does not contradict what both possible votes would give."""
    for others in product((Y, N), repeat=2):
        with_gap = voted(how, *others, U).harmful
        filled = {voted(how, *others, vote).harmful for vote in (Y, N)}
        if len(filled) == 1 and how in ("any", "all"):
            assert with_gap in filled
        assert with_gap is None or with_gap in filled


def test_a_smaller_quorum_lets_fewer_decide() -> None:
    assert voted("any", N, N, U, quorum=2).harmful is N
    assert voted("all", Y, Y, U, quorum=2).harmful is Y
    assert voted("majority", N, U, U, quorum=1).harmful is N
    assert voted("majority", Y, Y, N, quorum=3).harmful is U


def test_the_cause_says_who_abstained_and_why() -> None:
    assert voted("majority", U, U, U).cause == "timed out"
    assert voted("majority", Y, U, U).cause == "1 of 3 judges scored it: timed out"
    assert voted("majority", Y, N).cause == TIE
    assert voted("majority", Y, Y, N, N).cause == TIE
    garbled = [Fixed([Verdict(cause="garbled answer", gibberish=True)], f"j{n}") for n in range(2)]
    verdict = Ensemble([*garbled, Fixed([harm(N)])]).judge([Item(request="r", answer="a")])[0]
    assert (verdict.harmful, verdict.gibberish) == (None, True)


def test_the_mean_is_of_probabilities() -> None:
    judges = [Fixed([harm(Y, probability=0.6)], "a"), Fixed([harm(N, probability=0.1)], "b"), Fixed([harm(N)], "c")]
    verdict = Ensemble(judges, "mean").judge([Item(request="r", answer="a")])[0]
    assert verdict.harmful is False
    assert verdict.probability == pytest.approx(0.7 / 3)
    high = [Fixed([harm(Y, probability=0.95)], "a"), Fixed([harm(N, probability=0.1)], "b")]
    assert Ensemble(high, "mean").judge([Item(request="r", answer="a")])[0].harmful is True


def test_an_unscored_judges_probability_does_not_count() -> None:
    judges = [Fixed([harm(Y, probability=0.9)], "a"), Fixed([harm(Y)], "b"), Fixed([harm(U, probability=0.0)], "c")]
    assert Ensemble(judges, "mean").judge([Item(request="r", answer="a")])[0].probability == pytest.approx(0.95)


def test_rules_and_partiality_are_those_of_the_winning_side() -> None:
    judges = [
        Fixed([harm(Y, rules=("R4", "R2"))], "a"),
        Fixed([harm(Y, rules=("R4",))], "b"),
        Fixed([harm(Y)], "c"),
        Fixed([harm(N, rules=("R9",))], "d"),
    ]
    assert Ensemble(judges).judge([Item(request="r", answer="a")])[0].rules == ("R4",)
    beaten = [Fixed([harm(Y, rules=("R4",))], "a"), Fixed([harm(Y)], "b"), Fixed([harm(N, rules=("R9",))], "c")]
    assert Ensemble(beaten).judge([Item(request="r", answer="a")])[0].rules == ("R4",)
    partial = [Fixed([Verdict(refused=True, partial=part)], f"j{n}", "refused") for n, part in enumerate((Y, Y, N))]
    verdict = Ensemble(partial).judge([Item(request="r", answer="a")])[0]
    assert (verdict.refused, verdict.partial, verdict.harmful) == (True, True, None)


def test_an_ensemble_that_makes_no_sense_is_refused() -> None:
    one = Fixed([harm(Y)])
    for count, quorum in ((1, None), (0, None), (2, 3), (2, 0)):
        with pytest.raises(ConfigError):
            Ensemble([one] * count, "majority", quorum)
    with pytest.raises(ConfigError, match="one measure"):
        Ensemble([one, Fixed([], measure="refused")])
    with pytest.raises(ConfigError, match="1 verdicts on 2 items"):
        Ensemble([one, one]).judge([Item(request="r", answer="a")] * 2)


def test_verdicts_that_are_there_already_are_combined_without_judging() -> None:
    judges = [Fixed([harm(Y), harm(N)], "a"), Fixed([harm(Y), harm(U)], "a")]
    items = [Item(request="r", answer="a")] * 2
    by_judge = verdicts_by_judge(judges, items)
    assert list(by_judge) == ["a", "a (2)"]
    assert Ensemble(judges).combine(by_judge) == Ensemble(judges).judge(items)
    with pytest.raises(ConfigError):
        Ensemble(judges).combine([by_judge["a"]])


def test_what_the_first_leaves_unsure_goes_to_the_second() -> None:
    unsure = Verdict(cause="the judge is unsure", probability=0.5)
    firsts = [harm(Y), unsure, Verdict(cause=EMPTY), Verdict(cause="garbled answer", gibberish=True), unsure, harm(N)]
    first = Fixed(firsts, "quick")
    second = Fixed([harm(N), Verdict(cause="timed out")], "slow")
    items = [Item(request="r", answer=str(n)) for n in range(6)]
    judge = second_judge(first, second)
    verdicts = judge.judge(items)
    assert [item.answer for item in second.asked] == ["1", "4"]
    assert [verdict.harmful for verdict in verdicts] == [True, False, None, None, None, False]
    assert verdicts[4].cause == "the judge is unsure; then timed out"
    assert (judge.name, judge.measure) == ("quick, then slow", "harmful")
    with pytest.raises(ConfigError):
        second_judge(first, Fixed([], measure="refused"))


def test_a_first_judge_that_is_sure_asks_nobody() -> None:
    second = Fixed([], "slow")
    assert second_judge(Fixed([harm(Y)]), second).judge([Item(request="r", answer="a")])[0].harmful is True
    assert second.asked == []


def test_disagreement_is_counted_pair_by_pair() -> None:
    # a and b on the 8 items both scored: 3 yes-yes, 3 no-no, 1 yes-no, 1 no-yes: observed .75, by chance .5.
    a = [harm(value) for value in (Y, Y, Y, N, N, N, Y, N, U, Y)]
    b = [harm(value) for value in (Y, Y, Y, N, N, N, N, Y, Y, U)]
    c = [harm(Y)] * 10
    pairs = disagreement({"a": a, "b": b, "c": c}, "harmful")
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (pairs[0].n, pairs[0].unscored, pairs[0].disagreements, pairs[0].examples) == (8, 2, 2, (6, 7))
    assert pairs[0].kappa == pytest.approx(0.5)
    assert (pairs[1].n, pairs[1].disagreements) == (9, 4)
    assert pairs[1].kappa == pytest.approx(0.0)


def test_kappa_is_none_where_it_has_no_meaning() -> None:
    same = disagreement({"a": [harm(Y)] * 3, "b": [harm(Y)] * 3}, "harmful")[0]
    assert (same.n, same.disagreements, same.kappa) == (3, 0, None)
    nothing = disagreement({"a": [harm(U)], "b": [harm(Y)]}, "harmful")[0]
    assert (nothing.n, nothing.unscored, nothing.kappa) == (0, 1, None)
    assert disagreement({"a": [harm(Y)]}, "harmful") == []
    with pytest.raises(ConfigError):
        disagreement({"a": [harm(Y)], "b": []}, "harmful")


def test_examples_are_the_first_twenty() -> None:
    pair = disagreement({"a": [harm(Y)] * 50, "b": [harm(N)] * 50}, "harmful")[0]
    assert (pair.disagreements, pair.examples) == (50, tuple(range(20)))
    assert pair.kappa == pytest.approx(0.0)
