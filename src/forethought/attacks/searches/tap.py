"""TAP: PAIR's refinement as a tree, pruned of messages off topic before they are asked, and by rating after."""

from __future__ import annotations

import random
from dataclasses import dataclass

from forethought.attacks.base import Options
from forethought.attacks.searches.base import Goal, Reply, Run, Tools, described
from forethought.attacks.searches.dialogue import (
    Chat,
    RedTeam,
    Turn,
    best_first,
    fill,
    prompts,
    shown,
)
from forethought.attacks.searches.pair import FORM, refined
from forethought.records import Message


@dataclass(frozen=True)
class _Leaf:
    """A message of the tree, and the chat that led to it."""

    chat: Chat
    turn: Turn


def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
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
        leaves = [_Leaf(chat, turn) for chat, turn in zip(branches, turns, strict=True) if turn is not None]
        topics = yield from red.decide([_topic(red, leaf) for leaf in leaves], "topic_undecided")
        red.counts["off_topic"] += topics.count(False)
        leaves = [leaf for leaf, on_topic in zip(leaves, topics, strict=True) if on_topic is not False]
        replies = yield from red.ask([leaf.turn.text for leaf in leaves])
        if any(reply.broken is True for reply in replies):
            break
        answered = [pair for pair in zip(leaves, replies, strict=True) if pair[1].response is not None]
        kept = best_first(answered, _rating, rng)[: int(options["width"])]
        red.counts["pruned_by_rating"] += len(answered) - len(kept)
        keep = int(options["keep"])
        chats = [refined(red, pair_texts, leaf.chat, leaf.turn, reply, keep) for leaf, reply in kept] or chats
    yield [red.note()]


def _rating(one: tuple[_Leaf, Reply]) -> int | None:
    return one[1].rating


def _topic(red: RedTeam, leaf: _Leaf) -> tuple[Message, ...]:
    """The evaluator's question: does the message ask for what the request asks?"""
    texts = prompts("tap")
    values = red.texts(message=shown("message", leaf.turn.text))
    return (
        Message(role="system", content=fill(texts["on_topic"], values)),
        Message(role="user", content=fill(texts["message"], values)),
    )


METHODS = described("tap", tap=search)
