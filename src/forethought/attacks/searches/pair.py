"""PAIR: streams in which an attacker refines one message by the attacked model's answer and its rating."""

from __future__ import annotations

import random
from collections.abc import Mapping

from forethought.attacks.base import Options, Parameter
from forethought.attacks.searches.base import Goal, Method, Reply, Run, Tools
from forethought.attacks.searches.dialogue import (
    ATTACKER_PARAMETERS,
    Chat,
    Form,
    RedTeam,
    Turn,
    answer_of,
    fill,
    prompts,
    rating_said,
    shown,
)

ROLES = ("role_play", "logical_appeal", "authority_endorsement")
"""System prompts of the attacker, dealt to the streams in turn."""
FORM = Form(message="prompt", remarks=("improvement",))


def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Runs all streams side by side and ends with the round in which one gets through.

    A stream whose attacker wrote nothing that can be read, or whose message got no response, tries again from the
    same place in the next round: neither is fed back.
    """
    red = RedTeam("pair", goal, rng, options, FORM)
    texts = prompts("pair")
    chats = [
        red.chat(texts, role=texts[ROLES[stream % len(ROLES)]].strip()) for stream in range(int(options["streams"]))
    ]
    for _ in range(int(options["depth"])):
        turns = yield from red.write(chats)
        written = [(place, turn) for place, turn in enumerate(turns) if turn is not None]
        replies = yield from red.ask([turn.text for _, turn in written])
        for (place, turn), reply in zip(written, replies, strict=True):
            chats[place] = refined(red, texts, chats[place], turn, reply, int(options["keep"]))
        if any(reply.broken is True for reply in replies):
            break
    yield [red.note()]


def refined(red: RedTeam, texts: Mapping[str, str], chat: Chat, turn: Turn, reply: Reply, keep: int) -> Chat:
    """The chat after the attacker is told what came of its message; unchanged where there was no response."""
    answer = answer_of(reply)
    if answer is None:
        return chat
    values = red.texts(answer=shown("answer", answer), rating=rating_said(reply.rating))
    return chat.went(turn, fill(texts["feedback"], values), keep)


PAIR = Method(
    name="pair",
    title="PAIR",
    paper="Chao et al., Jailbreaking Black Box Large Language Models in Twenty Queries, arXiv 2310.08419",
    needs=("attacker",),
    cost="at most 90 queries and 90 messages of the attacker (450 where none can be read)",
    parameters=(
        Parameter(name="streams", meaning="conversations with the attacker, side by side", default=30, least=1),
        Parameter(name="depth", meaning="messages of each stream", default=3, least=1),
        Parameter(name="keep", meaning="exchanges that the attacker remembers", default=4, most=1000),
        *ATTACKER_PARAMETERS,
    ),
    queries=90,
    search=search,
)
"""Thirty streams of depth three, as in the paper's later versions and code; its first version had twenty."""

METHODS = (PAIR,)
