"""GCG under the driver: runs to its end, and one that was killed gives the same outcomes without a step done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forethought.attacks.searches import gcg
from forethought.attacks.searches.base import Goal, Tools, parse_method
from forethought.attacks.searches.driver import OUTCOMES_FILE
from forethought.attacks.searches.weights import gcg as gcg_step
from forethought.records import user_request
from tests.attacks.gcg_toy import toy
from tests.attacks.searching import run

GOALS = [
    Goal(user_request("what is the sun", harmful=True), "sure red"),
    Goal(user_request("what is the cat", harmful=True), "sure blue"),
    Goal(user_request("what is the star", harmful=False), "sure one"),
]
SMALL = {"steps": 6, "candidates": 6, "top_k": 8, "length": 3}


def small(method: Any) -> Any:
    return method.model_copy(update={"chosen": SMALL})


def forget() -> None:
    """As in a new process."""
    gcg._STATES.clear()
    gcg._LIVE.clear()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Counts the steps; the run is killed at one of them."""
    whole = gcg_step.step

    def counted(kill_at: int) -> list[int]:
        done: list[int] = []

        def step(problem: Any, state: Any, number: int) -> Any:
            if len(done) == kill_at:
                raise KeyboardInterrupt
            done.append(number)
            return whole(problem, state, number)

        monkeypatch.setattr(gcg_step, "step", step)
        return done

    return counted


def attack(folder: Path) -> Any:
    forget()
    methods = [small(parse_method("gcg")), small(parse_method("gcg_multi"))]
    return run(methods, GOALS, toy(), folder, tools=Tools(model=toy(), able=toy().able))


def test_a_killed_run_gives_the_same_outcomes(tmp_path: Path, steps: Callable[[int], list[int]]) -> None:
    done = steps(-1)
    result = attack(tmp_path / "whole")
    assert [outcome.ended for outcome in result.outcomes] == ["end"] * 6
    assert all(outcome.asks >= 1 and outcome.forwards > 36 for outcome in result.outcomes)
    # Three searches of their own, and one suffix for the group of the two that are not harmless.
    assert len(done) == 4 * 6
    killed = steps(9)
    with pytest.raises(KeyboardInterrupt):
        attack(tmp_path / "killed")
    again = steps(-1)
    attack(tmp_path / "killed")
    assert len(killed) + len(again) == len(done)
    assert (tmp_path / "killed" / OUTCOMES_FILE).read_bytes() == (tmp_path / "whole" / OUTCOMES_FILE).read_bytes()
