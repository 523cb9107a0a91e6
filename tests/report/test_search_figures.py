"""Adaptive attacks in figures: success by budget, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from forethought.evals.attacks.adaptive.outcome import Outcome
from forethought.report.attack_figures import search_figures, search_results
from forethought.report.attack_plots import budget_curves


def _outcome(goal: str, first: int | None, harmful: bool = True, method: str = "pair", **more: Any) -> Outcome:
    held = {"key": goal + method, "budget": 10, "ended": "budget", "verdicts": 10, "queries": first or 10}
    refused = 0 if first else 10
    values = {**held, "refused": refused, "first_success": first, **more}
    return Outcome(method=method, goal=goal, harmful=harmful, **values)


OUTCOMES = [
    _outcome("a", 1),
    _outcome("b", 5),
    _outcome("c", None),
    _outcome("d", None, verdicts=0, refused=0, ended="error"),
    _outcome("x", 1, harmful=False),
    _outcome("y", None, harmful=False),
    _outcome("c", 2, method="tap"),
    _outcome("d", None, method="tap"),
]


def test_success_by_budget() -> None:
    figures = {figure.name: figure for figure in search_figures(OUTCOMES)}
    # The one that broke down is unscored; three are left.
    assert [figures[f"asr_pair_at_{n}"].value for n in (1, 2, 5, 10)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert (figures["asr_pair"].value, figures["asr_pair"].unscored) == (figures["asr_pair_at_10"].value, 1)
    assert figures["refused_pair"].value == 0.5
    assert figures["youden_pair"].value == pytest.approx(1 / 3 - 0.5)
    assert figures["queries_pair"].value == pytest.approx((1 + 5 + 10 + 10) / 4)
    assert "refused_tap" not in figures
    assert figures["asr_adaptive"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    # a, b and c are broken by one or the other; nothing is known of d by the first, and the other did not break it.
    assert (figures["asr_adaptive_any"].value, figures["asr_adaptive_any"].unscored) == (1.0, 1)


def test_nothing_without_a_harmful_goal() -> None:
    assert search_figures([]) == []
    assert search_figures([_outcome("x", 1, harmful=False)]) == []


def test_curves_are_drawn_and_an_all_unscored_method_is_left_out() -> None:
    lost = [_outcome("z", None, method="lost", verdicts=0, ended="error")]
    drawn = budget_curves(search_results([*OUTCOMES, *lost]))
    assert drawn.startswith("<svg")
    only = budget_curves(search_results(lost))
    assert only.startswith("<svg")
