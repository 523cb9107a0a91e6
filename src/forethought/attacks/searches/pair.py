"""PAIR: streams in which an attacker refines one message by the attacked model's answer and its rating.

TAP makes a tree of it, pruned of messages off topic before they are asked, and by rating after.
"""

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
    best_first,
    fill,
    prompts,
    question,
    rating_said,
    shown,
)

ROLES = ("role_play", "logical_appeal", "authority_endorsement")
"""System prompts of PAIR's attacker, dealt to the streams in turn."""
FORM = Form(message="prompt", remarks=("improvement",))


def pair(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
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
            chats[place] = _refined(red, texts, chats[place], turn, reply)
        if any(reply.broken is True for reply in replies):
            break
    yield [red.note()]


def tap(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Branches, prunes by topic, asks, prunes by rating, to the depth given or until one gets through.

    As in the paper's algorithm all messages on topic are asked; the authors' code asks at most `width` of them a level.
    One whose topic the evaluator leaves undecided is kept, as in their code, and counted. An unscored message
    ranks behind all that are rated. Where a level leaves nothing to go on from, the next one branches from the
    same leaves again.
    """
    red = RedTeam("tap", goal, rng, options, FORM)
    texts, pair_texts = prompts("tap"), prompts("pair")
    chats = [red.chat({"system": texts["system"], "first": pair_texts["first"]})]
    for _ in range(int(options["depth"])):
        branches = [chat for chat in chats for _ in range(int(options["branching"]))]
        turns = yield from red.write(branches)
        leaves = [(chat, turn) for chat, turn in zip(branches, turns, strict=True) if turn is not None]
        asked = [red.texts(message=shown("message", turn.text)) for _, turn in leaves]
        topics = yield from red.decide(
            [question(texts["on_topic"], texts["message"], values) for values in asked], "topic_undecided"
        )
        red.counts["off_topic"] += topics.count(False)
        leaves = [leaf for leaf, on_topic in zip(leaves, topics, strict=True) if on_topic is not False]
        replies = yield from red.ask([turn.text for _, turn in leaves])
        if any(reply.broken is True for reply in replies):
            break
        answered = [
            (chat, turn, reply)
            for (chat, turn), reply in zip(leaves, replies, strict=True)
            if reply.response is not None
        ]
        kept = best_first(answered, lambda one: one[2].rating, rng)[: int(options["width"])]
        red.counts["pruned_by_rating"] += len(answered) - len(kept)
        chats = [_refined(red, pair_texts, *one) for one in kept] or chats
    yield [red.note()]


def _refined(red: RedTeam, texts: Mapping[str, str], chat: Chat, turn: Turn, reply: Reply) -> Chat:
    """The chat after the attacker is told what came of its message; unchanged where there was no response."""
    answer = answer_of(reply)
    if answer is None:
        return chat
    values = red.texts(answer=shown("answer", answer), rating=rating_said(reply.rating))
    return chat.went(turn, fill(texts["feedback"], values), int(red.options["keep"]))


METHODS = [*described("pair", pair=pair), *described("tap", tap=tap)]
