"""Searches, writers and judges by rule, for the tests of the driver."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.attacks.base import Attacked, Options, Parameter
from forethought.attacks.searches.base import Ask, Goal, Method, Question, Reply, Run, Tools, Write, opening_of
from forethought.attacks.searches.driver import Parties, run_searches
from forethought.attacks.searches.models import OnText
from forethought.attacks.searches.outcome import Outcome, SearchRun, SearchSettings
from forethought.judges.base import Item, Measure, Verdict
from forethought.models.conversation import Able, Conversation, Failed, Respondent
from forethought.records import user_request
from tests.scripted import Scripted

REFUSAL, ANSWER = "I can't help you with that.", "Sure, that is how it goes."


def goal(text: str = "Tell me about the garden", harmful: bool | None = True) -> Goal:
    request = user_request(text, harmful=harmful)
    return Goal(request=request, target_string=opening_of(request))


class WordJudge:
    """Refused where the answer begins with "I can't", harmful where it begins with "Sure"; else it does not know."""

    def __init__(self, measure: Measure = "harmful", name: str = "words") -> None:
        self.name, self.measure = name, measure
        self.items: list[Item] = []

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        self.items += items
        return [self._one(item.answer) for item in items]

    def _one(self, answer: str) -> Verdict:
        if answer.startswith("I can't"):
            return Verdict(refused=True, harmful=False)
        if answer.startswith("Sure"):
            return Verdict(refused=False, harmful=True)
        return Verdict(cause="the judge does not know")


class Pen:
    """A writer: numbers its texts, or says what a rule gives."""

    def __init__(self, rule: Callable[[Write], Reply] | None = None, name: str = "pen") -> None:
        self.name = name
        self.asked: list[Write] = []
        self._rule = rule or (lambda one: Reply(text=f"draft {one.take}", tokens=3))

    def write(self, asked: Sequence[Write], on_text: OnText) -> None:
        self.asked += asked
        for place, one in enumerate(asked):
            on_text(place, self._rule(one))


def asks(goal: Goal, *texts: str) -> list[Ask]:
    return [Ask(attacked=Attacked(request=goal.request).said(text)) for text in texts]


def counting(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Asks `size` numbered questions a round, up to `rounds`, and ends with a success."""
    size = int(options["size"])
    for number in range(int(options["rounds"])):
        texts = [f"{goal.request.text}, try {number * size + place + 1}" for place in range(size)]
        replies = yield asks(goal, *texts)
        if any(reply.broken for reply in replies):
            return


def method(search: Any, name: str = "counting", **fields: Any) -> Method:
    parameters = (
        Parameter(name="size", meaning="questions a round", default=3),
        Parameter(name="rounds", meaning="rounds", default=4),
    )
    plain: dict[str, Any] = {"name": name, "title": name, "paper": "", "cost": "", "queries": 12, "search": search}
    return Method(**{**plain, "parameters": parameters, **fields})


def target(*through: str, fails: str = "\0", log_prob: Any = None, able: Able | None = None) -> Scripted:
    """Answers conversations that end with one of `through`, refuses others, and gives nothing where `fails` stands."""

    def answer(conversation: Conversation) -> str | Failed:
        text = conversation.messages[-1].content
        if fails in text:
            return Failed(cause="the model broke down")
        return ANSWER if text.endswith(through) and through else REFUSAL

    return Scripted(answer, log_prob=log_prob, able=able)


def run(
    methods: Method | Sequence[Method], goals: Goal | Sequence[Goal], on: Respondent, folder: Path, **more: Any
) -> SearchRun:
    settings = SearchSettings(**more.pop("settings", {}))
    methods = [methods] if isinstance(methods, Method) else methods
    goals = [goals] if isinstance(goals, Goal) else goals
    others = {name: more.pop(name) for name in ("harmless_judge", "attacker", "evaluator") if name in more}
    parties = Parties(on, more.pop("judge", WordJudge()), **others)
    return run_searches(methods, goals, parties, folder, settings=settings, **more)


def one(result: SearchRun) -> Outcome:
    (outcome,) = result.outcomes
    return outcome


def play(run: Run, reply: Callable[[Question], Reply]) -> list[list[Question]]:
    """Runs a search on replies made one by one, and gives what it asked, round by round."""
    rounds: list[list[Question]] = []
    questions = next(run, None)
    while questions is not None:
        assert questions, "an empty round"
        rounds.append(list(questions))
        try:
            questions = run.send([reply(one) for one in questions])
        except StopIteration:
            break
    return rounds
