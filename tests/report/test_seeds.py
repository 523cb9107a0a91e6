"""Figures over several training seeds."""

from __future__ import annotations

import pytest

from forethought.evals.metrics import Figure
from forethought.evals.respond import Judged
from forethought.report.figures import defence_figures
from forethought.report.seeds import figures_over_seeds
from tests.judged import comparison, judged_one, request_of


def _run(refused: int, of: int = 40) -> list[Judged]:
    """A training seed that refuses so many of the harmful requests."""
    return [judged_one(request_of(f"cheat {n}", True), n < refused, ("direct",)) for n in range(of)]


def _figures(runs: list[list[Judged]]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures_over_seeds("scot", runs, ["style_json"])}


def test_mean_over_seeds_by_hand() -> None:
    figure = _figures([_run(40), _run(30), _run(20)])["asr_direct_scot"]
    assert figure.value == pytest.approx(0.25)
    assert (figure.n, figure.unscored) == (120, 0)
    assert figure.low is not None
    assert figure.high is not None
    # Seeds at 0, .25 and .5 leave two degrees of freedom: the interval is far wider than one of 120 answers.
    assert figure.high - figure.low > 0.4


def test_one_seed_has_the_values_of_its_own_figures() -> None:
    judged = comparison()["scot"]
    single = {figure.name: figure for figure in defence_figures("scot", judged, ["style_json"], ["style_json"])}
    over = _figures([judged])
    assert set(over) == {
        "asr_direct_scot", "asr_unseen_scot", "answered_ordinary_scot", "refused_styled_harmless_scot",
        "youden_unseen_scot", "auroc_unseen_scot", "auroc_direct_scot",
    }  # fmt: skip
    for name, figure in over.items():
        assert (figure.value, figure.n, figure.unscored) == (single[name].value, single[name].n, single[name].unscored)


def test_a_seed_that_failed_is_unscored() -> None:
    failed = [judged_one(request_of(f"cheat {n}", True), None, ("direct",), failed=True) for n in range(40)]
    figure = _figures([_run(40), failed])["asr_direct_scot"]
    assert (figure.value, figure.n, figure.unscored) == (0.0, 40, 40)
