"""A search that was killed goes on where it was: nothing is asked twice, and its outcome is that of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from forethought.attacks.base import Attacked, Options
from forethought.attacks.searches.base import Compute, Goal, Reply, Run, Score, Tools, Write
from forethought.attacks.searches.driver import OUTCOMES_FILE, read_outcomes
from forethought.attacks.searches.models import OnText
from forethought.attacks.searches.outcome import SearchRun
from forethought.models.conversation import Conversation, Failed
from tests.attacks.searching import (
    ANSWER,
    REFUSAL,
    Pen,
    WordJudge,
    asks,
    counting,
    goal,
    method,
    one,
    run,
    target,
)
from tests.child import code
from tests.scripted import Scripted

ROOT = Path(__file__).resolve().parents[2]
GOALS = [goal(f"garden {number}") for number in range(4)]


def everything(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Uses every kind of question, and its random numbers and earlier replies decide what comes next."""
    start, drawn = Attacked(request=goal.request), 0
    for number in range(4):
        drawn += rng.randrange(1000)
        made, text, score = yield [
            Compute(name=f"step/{number}", work=partial(dict, drawn=drawn), forwards=2),
            Write(role="attacker", messages=goal.request.messages, take=drawn),
            Score(attacked=start, target_string=f"Sure {drawn}"),
        ]
        assert made.made is not None
        said = f"{text.text} {made.made['drawn']} {score.log_prob}"
        replies = yield asks(goal, *(f"{said}, {rng.randrange(100)}" for _ in range(3)))
        if any(reply.broken for reply in replies):
            return


def answer(conversation: Conversation) -> str | Failed:
    """By the last digit: lost, through, or refused."""
    digit = conversation.messages[-1].content[-1]
    return Failed(cause="lost") if digit == "7" else ANSWER if digit == "5" else REFUSAL


class Noted(Scripted):
    """Writes each question into a file as it answers it, and kills its process with the n-th."""

    def __init__(self, log: Path, dies_at: int) -> None:
        super().__init__(answer, log_prob=lambda conversation, text, first: -float(len(text)))
        self._log, self._dies_at, self._told = log, dies_at, 0

    def note(self, what: str) -> None:
        with self._log.open("a") as file:
            file.write(what + "\n")

    def reply(self, conversations, max_answer_tokens=128, on_reply=None):  # type: ignore[no-untyped-def]
        def told(place: int, reply: object) -> None:
            self.note(conversations[place].messages[-1].content)
            on_reply(place, reply)
            self.die()

        return super().reply(conversations, max_answer_tokens, told)

    def die(self) -> None:
        self._told += 1
        if self._told == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


class NotedPen(Pen):
    def __init__(self, on: Noted) -> None:
        super().__init__(lambda one: Reply(text=f"draft {one.take}", tokens=2))
        self._on = on

    def write(self, asked, on_text: OnText) -> None:  # type: ignore[no-untyped-def]
        def told(place: int, written: Reply) -> None:
            self._on.note(f"write {asked[place].messages[0].content} {asked[place].take}")
            on_text(place, written)
            self._on.die()

        super().write(asked, told)


def carried_out(folder: Path, log: Path, dies_at: int = 0) -> SearchRun:
    on = Noted(log, dies_at)
    settings = {"concurrent": 3, "budget": 15}
    return run(method(everything, "all"), GOALS, on, folder, settings=settings, attacker=NotedPen(on))


_CHILD = """
import sys
from pathlib import Path
from tests.attacks.test_resume import carried_out

carried_out(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.mark.slow
def test_three_kills_ask_nothing_twice_and_change_nothing(tmp_path: Path) -> None:
    whole = carried_out(tmp_path / "whole", tmp_path / "whole.log")
    assert sum(outcome.queries for outcome in whole.outcomes) > 25
    killed = 0
    for dies_at in (5, 9, 14):  # within the writes of a round, and within its answers
        killed += code(_CHILD, tmp_path / "k", tmp_path / "k.log", dies_at).wait() == -signal.SIGKILL
    assert killed == 3
    again = carried_out(tmp_path / "k", tmp_path / "k.log")
    assert again.outcomes == whole.outcomes
    once = Counter((tmp_path / "whole.log").read_text().splitlines())
    assert Counter((tmp_path / "k.log").read_text().splitlines()) == once
    assert (tmp_path / "k" / OUTCOMES_FILE).read_bytes() == (tmp_path / "whole" / OUTCOMES_FILE).read_bytes()


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    first = carried_out(tmp_path / "a", tmp_path / "log")
    before = (tmp_path / "log").read_text()
    again = carried_out(tmp_path / "a", tmp_path / "log")
    assert again.outcomes == first.outcomes
    assert (tmp_path / "log").read_text() == before


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_questions(tmp_path: Path) -> None:
    asked: dict[str, list[str]] = {}

    def seeded(folder: str, seed: int) -> bytes:
        on = Scripted(answer, log_prob=lambda *given: -1.0)
        run(method(everything, "all"), GOALS, on, tmp_path / folder, settings={"seed": seed}, attacker=Pen())
        asked[folder] = [conversation.messages[-1].content for conversation in on.asked]
        return (tmp_path / folder / OUTCOMES_FILE).read_bytes()

    assert seeded("a", 0) == seeded("b", 0)
    assert seeded("c", 1) != seeded("d", 0)
    assert asked["a"] == asked["b"] == asked["d"] != []
    assert set(asked["a"]).isdisjoint(asked["c"])
    first = [text.rpartition(",")[0] for text in asked["a"][::3]]
    assert len(set(first)) == len(first)  # each goal draws its own


def test_a_larger_budget_goes_on_from_the_smaller_one(tmp_path: Path) -> None:
    on = target("try 11")
    run(method(counting), goal(), on, tmp_path, settings={"budget": 6})
    result = run(method(counting), goal(), on, tmp_path, settings={"budget": 100})
    assert (len(on.asked), one(result).first_success) == (12, 11)
    (latest,) = read_outcomes(tmp_path)
    assert latest.budget == 100


def test_another_judge_judges_kept_answers_without_asking_again(tmp_path: Path) -> None:
    on, other = target("try 5"), WordJudge("refused", "other")
    run(method(counting), goal(), on, tmp_path)
    result = run(method(counting), goal(), on, tmp_path, judge=other)
    assert (len(on.asked), len(other.items)) == (6, 6)
    assert one(result).first_success == 5


@pytest.mark.parametrize("other", ["name", "tokens", "options", "target_string"])
def test_what_changes_an_answer_is_asked_anew(tmp_path: Path, other: str) -> None:
    run(method(counting), goal(), target(), tmp_path)
    on = target()
    its = goal()
    if other == "name":
        on.name = "another model"
    if other == "target_string":
        its = Goal(request=its.request, target_string="Of course")
    chosen = {"rounds": 3} if other == "options" else {}
    settings = {"max_answer_tokens": 7} if other == "tokens" else {}
    run(method(counting, chosen=chosen), its, on, tmp_path, settings=settings)
    assert len(on.asked) == (9 if other == "options" else 12)


def test_computed_steps_are_kept_and_done_again_only_where_what_came_before_differs(tmp_path: Path) -> None:
    done: list[int] = []

    def work(number: int) -> dict[str, int]:
        done.append(number)
        return {"n": number}

    def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
        for number in range(3):
            yield [Compute(name=f"step/{number}", work=partial(work, number))]
            yield asks(goal, f"try {number}")

    run(method(search), goal(), target(), tmp_path, settings={"budget": 2})
    run(method(search), goal(), target(), tmp_path, settings={"budget": 3})
    assert done == [0, 1, 2]
    # A judge that finds otherwise changes what the second step rests on.
    run(method(search), goal(), target(), tmp_path, judge=WordJudge("refused", "other"), settings={"budget": 3})
    assert done == [0, 1, 2]
    unsure = WordJudge(name="unsure")
    unsure._one = lambda answer: unsure.__class__("harmful")._one("")  # type: ignore[method-assign]
    run(method(search), goal(), target(), tmp_path, judge=unsure, settings={"budget": 3})
    assert done == [0, 1, 2, 1, 2]


def test_failed_replies_are_kept(tmp_path: Path) -> None:
    broken = target("try 5", fails="try 5")
    assert one(run(method(counting), goal(), broken, tmp_path)).failed == 1
    mended = target("try 5")
    assert one(run(method(counting), goal(), mended, tmp_path)).failed == 1
    assert mended.asked == []


def test_a_search_that_broke_down_is_tried_again(tmp_path: Path) -> None:
    broken = [True]

    def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
        yield asks(goal, "one")
        yield [Compute(name="step", work=lambda: {"x": 1 // (not broken[0])})]
        yield asks(goal, "two")

    on = target()
    assert one(run(method(search), goal(), on, tmp_path)).ended == "error"
    broken[0] = False
    assert one(run(method(search), goal(), on, tmp_path)).ended == "end"
    assert [conversation.messages[-1].content for conversation in on.asked] == ["one", "two"]
    assert len(list(read_outcomes(tmp_path))) == 1


def test_a_run_that_was_stopped_can_be_read(tmp_path: Path) -> None:
    carried_out(tmp_path, tmp_path / "log")
    file = tmp_path / OUTCOMES_FILE
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:40])
    assert [outcome.goal for outcome in read_outcomes(tmp_path)] == [json.loads(lines[0])["value"]["goal"]]
    assert len(carried_out(tmp_path, tmp_path / "log").outcomes) == 4
