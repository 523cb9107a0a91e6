"""Crescendo: a conversation that begins harmlessly and goes, on the model's own answers, a step further each turn."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from forethought.attacks.base import Options
from forethought.attacks.searches.base import Questions, Replies, Reply, described
from forethought.attacks.searches.dialogue import (
    Chat,
    Form,
    RedTeam,
    Turn,
    answer_of,
    conversations,
    exchange,
    fill,
    prompts,
    rating_said,
    shown,
)
from forethought.records import Message

FORM = Form(message="generatedQuestion", remarks=("lastResponseSummary", "rationaleBehindJailbreak"))


@dataclass
class _State:
    """Where a conversation stands."""

    chat: Chat
    said: list[Message] = field(default_factory=list)
    """The attacked conversation after the goal's own turns: questions and answers that were not taken back."""
    round: int = 1
    backtracks: int = 0


def _conversation(red: RedTeam, options: Options) -> Generator[Questions, Replies, bool]:
    """True when it got through.

    A question that is declined, or whose answer is empty, is taken back and costs a backtrack instead of a round. With
    no backtrack left, it costs a round, and a refusal stays in the conversation. A question that the attacker couldn't
    write, or that got no response, costs a round.
    """
    rounds = int(options["rounds"])
    state = _State(red.chat(prompts("crescendo"), rounds=rounds))
    while state.round <= rounds:
        [turn] = yield from red.write([state.chat])
        if turn is None:
            state.round += 1
            continue
        [reply] = yield from red.ask([turn.text], state.said)
        if reply.broken is True:
            return True
        answer = answer_of(reply)
        if answer is None:
            state.round += 1
            continue
        declined = False if not answer else (yield from _declined(red, turn, reply, answer))
        _go_on(red, state, options, turn, reply, declined)
    return False


def _go_on(red: RedTeam, state: _State, options: Options, turn: Turn, reply: Reply, declined: bool) -> None:
    """Keeps the exchange or takes it back, and tells the attacker."""
    answer = answer_of(reply) or ""
    back = (declined or not answer) and state.backtracks < int(options["backtracks"])
    if back:
        state.backtracks += 1
        red.counts["backtracks"] += 1
    else:
        state.round += 1
        red.counts["refusals_kept"] += declined
        state.said += exchange(turn.text, answer) if answer else ()
    told = "silent" if not answer else "declined" if back else "answered"
    values = red.texts(
        answer=shown("answer", answer),
        rating=rating_said(reply.rating),
        question=shown("question", turn.text),
        round=state.round,
        rounds=int(options["rounds"]),
    )
    state.chat = state.chat.went(turn, fill(prompts("crescendo")[told], values), int(options["keep"]))


def _declined(red: RedTeam, turn: Turn, reply: Reply, answer: str) -> Generator[Questions, Replies, bool]:
    """Whether the answer declines its question: the evaluator decides, else the judge; undecided goes on, counted."""
    texts = prompts("crescendo")
    values = {"question": shown("question", turn.text), "answer": shown("answer", answer)}
    asked = (
        Message(role="system", content=fill(texts["refusal"], values)),
        Message(role="user", content=fill(texts["exchange"], values)),
    )
    [declined] = yield from red.decide([asked], "refusal_undecided")
    if declined is None and reply.verdict is not None:
        declined = reply.verdict.refused
    return declined is True


METHODS = described("crescendo", crescendo=conversations("crescendo", FORM, _conversation))
