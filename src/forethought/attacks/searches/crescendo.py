"""Searches that hold conversations: Crescendo begins harmlessly and goes, on the model's own answers, a step further
each turn; in GOAT the attacker observes, thinks, picks from seven known techniques and replies."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from random import Random

from forethought.attacks.base import Options
from forethought.attacks.searches.base import Goal, Questions, Replies, Reply, Run, Search, Tools, described
from forethought.attacks.searches.dialogue import (
    Form,
    RedTeam,
    Turn,
    answer_of,
    exchange,
    fill,
    prompts,
    question,
    rating_said,
    shown,
)
from forethought.records import Message

CRESCENDO_FORM = Form(message="generatedQuestion", remarks=("lastResponseSummary", "rationaleBehindJailbreak"))
GOAT_FORM = Form(message="reply", remarks=("observation", "thought", "strategy"))


def _held(texts: Mapping[str, str], red: RedTeam, rounds: int, backtracks: int) -> Generator[Questions, Replies, bool]:
    """Holds one conversation; True when it got through.

    A question that is declined, or whose answer is empty, is taken back and costs a backtrack instead of a round. With
    no backtrack left, it costs a round, and a refusal stays in the conversation. A question that the attacker couldn't
    write, or that got no response, costs a round. Without the text `refusal` nobody is asked what was declined, and the
    attacker answers refusals.
    """
    keep, chat, number = int(red.options["keep"]), red.chat(texts, rounds=rounds), 1
    said: list[Message] = []
    """The attacked conversation after the goal's own turns: questions and answers that were not taken back."""
    while number <= rounds:
        [turn] = yield from red.write([chat])
        if turn is None:
            number += 1
            continue
        [reply] = yield from red.ask([turn.text], said)
        if reply.broken is True:
            return True
        answer = answer_of(reply)
        if answer is None:
            number += 1
            continue
        declined = False
        if answer and "refusal" in texts:
            declined = yield from _declined(texts, red, turn, reply, answer)
        back = (declined or not answer) and backtracks > 0
        if back:
            backtracks -= 1
            red.counts["backtracks"] += 1
        else:
            number += 1
            red.counts["refusals_kept"] += declined
            said += exchange(turn.text, answer) if answer else ()
        told = "silent" if not answer else "declined" if back else "answered"
        values = red.texts(
            answer=shown("answer", answer), rating=rating_said(reply.rating), question=shown("question", turn.text),
            round=number, rounds=rounds,
        )  # fmt: skip
        chat = chat.went(turn, fill(texts[told], values), keep)
    return False


def _declined(
    texts: Mapping[str, str], red: RedTeam, turn: Turn, reply: Reply, answer: str
) -> Generator[Questions, Replies, bool]:
    """Whether the answer declines its question: the evaluator decides, else the judge; undecided goes on, counted."""
    values = {"question": shown("question", turn.text), "answer": shown("answer", answer)}
    [declined] = yield from red.decide([question(texts["refusal"], texts["exchange"], values)], "refusal_undecided")
    if declined is None and reply.verdict is not None:
        declined = reply.verdict.refused
    return declined is True


def _conversations(name: str, form: Form, rounds: str) -> Search:
    """A search that holds conversations one after another, so many as its options say, until one gets through.

    `rounds` is its option for the turns of one.
    """

    def search(goal: Goal, rng: Random, options: Options, tools: Tools) -> Run:
        red, texts = RedTeam(name, goal, rng, options, form), prompts(name)
        for _ in range(int(options["conversations"])):
            if (yield from _held(texts, red, int(options[rounds]), int(options.get("backtracks", 0)))):
                break
        yield [red.note()]

    return search


METHODS = [
    *described("crescendo", crescendo=_conversations("crescendo", CRESCENDO_FORM, "rounds")),
    *described("goat", goat=_conversations("goat", GOAT_FORM, "turns")),
]
