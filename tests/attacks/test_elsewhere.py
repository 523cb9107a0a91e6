"""Searches that workers of a cluster carry out come out as those of one process, whoever is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forethought.attacks.searches.driver import Parties, Searching, read_outcomes, run_searches
from forethought.attacks.searches.elsewhere import run_searches_on
from forethought.attacks.searches.outcome import SearchRun, SearchSettings
from forethought.cluster.holders import Holders
from tests.attacks.searching import Pen, WordJudge, counting, goal, method
from tests.attacks.test_resume import answer, everything
from tests.cluster.inline import inline
from tests.scripted import Scripted

GOALS = [goal(f"garden {number}") for number in range(4)]
METHODS = [method(everything, "everything", queries=100), method(counting)]
SETTINGS = SearchSettings(budget=100, max_answer_tokens=8)


def scripted() -> Scripted:
    return Scripted(answer, log_prob=lambda conversation, text, first: -float(len(text)))


def opened(held: Scripted) -> Searching:
    from forethought.attacks.searches.base import Tools

    return Searching(METHODS, Parties(held, WordJudge(), None, Pen()), Tools(able=held.able), SETTINGS)


def elsewhere(folder: Path, held: Scripted, dies: Callable[[int, int], bool]) -> SearchRun:
    with inline(2, dies):
        return run_searches_on(Holders("ray", lambda: held), opened, METHODS, GOALS, folder, SETTINGS)


def plain(run: SearchRun) -> list[dict[str, Any]]:
    return [one.model_dump() for one in run.outcomes]


@pytest.mark.parametrize("lost", [None, 1, 2])
def test_outcomes_are_those_of_one_process(tmp_path: Path, lost: int | None) -> None:
    held, here = scripted(), scripted()
    parties = opened(here).parties
    one = run_searches(METHODS, GOALS, parties, tmp_path / "one", settings=SETTINGS)
    run = elsewhere(tmp_path / "many", held, lambda worker, step: worker == 0 and step == lost)
    assert plain(run) == plain(one)
    assert sorted(map(str, held.asked)) == sorted(map(str, here.asked))
    again = scripted()
    assert plain(elsewhere(tmp_path / "many", again, lambda worker, step: False)) == plain(one)
    assert again.asked == []
    assert len(list(read_outcomes(tmp_path / "many"))) == len(METHODS) * len(GOALS)


def test_a_search_that_every_worker_is_lost_with_is_unscored_and_run_again(tmp_path: Path) -> None:
    held = scripted()
    run = elsewhere(tmp_path, held, lambda worker, step: step >= (2 if worker == 0 else 1) and worker < 5)
    lost = [one for one in run.outcomes if one.ended == "error"]
    assert lost
    assert all(one.broken is None and "was lost" in one.cause for one in lost)
    one = run_searches(METHODS, GOALS, opened(scripted()).parties, tmp_path / "one", settings=SETTINGS)
    assert plain(elsewhere(tmp_path, held, lambda worker, step: False)) == plain(one)
