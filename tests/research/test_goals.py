"""Goals against figures: both sides, bounds that rest on another figure, and what is not known."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from forethought.metrics import Figure
from forethought.research.config import Goal
from forethought.research.report import reached

FIGURES = [
    Figure(name="auroc", value=0.97, low=0.95, high=0.99),
    Figure(name="asr", value=0.2, low=0.15, high=0.25),
    Figure(name="asr_twin", value=0.7, low=0.6, high=0.8),
    Figure(name="gcg", value=float("nan")),
    Figure(name="tokens", value=34.0),
]


@pytest.mark.parametrize(
    ("goal", "outcome"),
    [
        (Goal(figure="auroc", least=0.9), "met"),
        (Goal(figure="auroc", least=0.96), "met, not shown"),
        (Goal(figure="auroc", least=0.98), "missed, not shown"),
        (Goal(figure="auroc", least=0.995), "missed"),
        (Goal(figure="asr", most=0.3), "met"),
        (Goal(figure="asr", most=0.22), "met, not shown"),
        (Goal(figure="asr", most=0.18), "missed, not shown"),
        (Goal(figure="asr", most=0.1), "missed"),
        (Goal(figure="asr", most=0.5, of="asr_twin"), "met"),
        (Goal(figure="asr", most=0.25, of="asr_twin"), "missed, not shown"),
        (Goal(figure="tokens", most=40), "met"),
        (Goal(figure="gcg", most=0.5), "not measured"),
        (Goal(figure="never", most=0.5), "not measured"),
        (Goal(figure="asr", most=0.5, of="gcg"), "not measured"),
    ],
)
def test_outcomes(goal: Goal, outcome: str) -> None:
    (found,) = reached([goal], FIGURES)
    assert found.outcome == outcome


def test_an_interval_that_ends_at_the_bound_shows_what_was_asked() -> None:
    (found,) = reached([Goal(figure="asr", most=0.25)], FIGURES)
    assert found.outcome == "met"
    (found,) = reached([Goal(figure="auroc", least=0.95)], FIGURES)
    assert found.outcome == "met"


def test_a_bound_is_told_in_words() -> None:
    goals = [
        Goal(figure="auroc", least=0.9), Goal(figure="asr", most=0.5, of="asr_twin"),
        Goal(figure="asr", most=0.5, of="gcg"),
    ]  # fmt: skip
    assert [one.asked for one in reached(goals, FIGURES)] == [
        "at least 0.9", "at most 0.5 times asr_twin (0.35)", "at most 0.5 times gcg",
    ]  # fmt: skip


@pytest.mark.parametrize("given", [{}, {"least": 0.1, "most": 0.2}])
def test_a_goal_has_one_bound(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="either `least` or `most`"):
        Goal.model_validate({"figure": "auroc", **given})
