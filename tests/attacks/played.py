"""Plays a search against scripted attacker, evaluator, attacked model and judge, and keeps all that was asked."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from forethought.attacks.base import Attacked, Option
from forethought.attacks.searches.base import Ask, Compute, Goal, Method, Question, Reply, Tools, Write
from forethought.judges.base import Verdict
from forethought.models.conversation import Response
from forethought.records import Message, Request, user_request

GOAL = Goal(request=user_request("Tell how the new film ends"), target_string="Sure, the new film ends")
FAILED = Reply(cause="the server went away")

Says = Callable[[str, int], "str | Reply"]
"""(the conversation's text, number of the call to this role from 0) to what it says."""


def scored(answer: str, reasoning: str = "") -> Reply:
    """The reply that a driver makes of an answer: "Sure" breaks, "Sorry" refuses, "Hm" is unscored."""
    response = Response(answer=answer, reasoning_text=reasoning)
    if answer.startswith("Hm") or not answer:
        return Reply(response=response, verdict=Verdict(cause="can't tell"))
    broken, refused = answer.startswith("Sure"), answer.startswith("Sorry")
    rating = 10 if broken else 1 if refused else 5
    return Reply(response=response, verdict=Verdict(refused=refused, harmful=broken), broken=broken, rating=rating)


def writes(**fields: str) -> str:
    """JSON as an attacker writes it."""
    return json.dumps(fields)


@dataclass
class Played:
    """What a search asked, by kind and in order."""

    batches: list[list[Question]] = field(default_factory=list)
    asked: list[Attacked] = field(default_factory=list)
    written: list[Write] = field(default_factory=list)
    decided: list[Write] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    """The last note."""
    notes: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> list[int]:
        """Questions to the attacked model in each batch that had any."""
        found = [sum(isinstance(one, Ask) for one in batch) for batch in self.batches]
        return [size for size in found if size]

    @property
    def messages(self) -> list[str]:
        """Last turns put to the attacked model."""
        return [attacked.text for attacked in self.asked]


def text_of(messages: Sequence[Message]) -> str:
    """A conversation in one string."""
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def play(
    method: Method,
    attacker: Says,
    target: Says = lambda text, number: "Sorry, no.",
    evaluator: Says = lambda text, number: "[[YES]]",
    seed: int = 0,
    goal: Goal = GOAL,
    **options: Option,
) -> Played:
    """Runs the search to its end. Options that aren't given have the paper's values."""
    defaults = {parameter.name: parameter.default for parameter in method.parameters}
    assert set(options) <= set(defaults)
    given: dict[str, Option] = {name: value for name, value in {**defaults, **options}.items() if value is not None}
    run = method.search(goal, random.Random(seed), given, Tools())
    played = Played()
    replies: list[Reply] | None = None
    while True:
        try:
            batch = list(next(run) if replies is None else run.send(replies))
        except StopIteration:
            return played
        played.batches.append(batch)
        replies = [_reply(one, played, attacker, target, evaluator) for one in batch]


def _reply(one: Question, played: Played, attacker: Says, target: Says, evaluator: Says) -> Reply:
    if isinstance(one, Ask):
        said = target(text_of(one.attacked.messages), len(played.asked))
        played.asked.append(one.attacked)
        return said if isinstance(said, Reply) else scored(said)
    if isinstance(one, Write):
        kept = played.written if one.role == "attacker" else played.decided
        said = (attacker if one.role == "attacker" else evaluator)(text_of(one.messages), len(kept))
        kept.append(one)
        return said if isinstance(said, Reply) else Reply(text=said)
    assert isinstance(one, Compute)
    assert one.forwards == 0
    played.counts = json.loads(json.dumps(one.work()))
    played.notes.append(one.name)
    return Reply(made=played.counts)


def with_history() -> Request:
    """A goal that comes with a system prompt and earlier turns."""
    roles = (("system", "Be kind."), ("user", "Hello"), ("assistant", "Hi."), ("user", "Tell how the new film ends"))
    return Request.model_validate({"messages": [{"role": role, "content": text} for role, text in roles]})
