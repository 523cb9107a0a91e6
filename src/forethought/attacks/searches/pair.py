"""PAIR: streams in which an attacker refines one message by the attacked model's answer and its rating."""

from __future__ import annotations

import random
from collections.abc import Mapping

from forethought.attacks.base import Options
from forethought.attacks.searches.base import Goal, Reply, Run, Tools, described
from forethought.attacks.searches.dialogue import (
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


METHODS = described("pair", pair=search)
