"""SmoothLLM: perturbations by count, votes by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from forethought.defences.reworded import UNREADABLE, Perturbation, SmoothLLM, SmoothSettings, perturb
from forethought.models.conversation import Conversation, Failed, Response
from tests.scripted import Scripted, as_messages

TEXT = "a" * 50
NO = "I'm sorry, but I can't help with that."


def _one(answers: list[str | Failed], seed: int = 0) -> tuple[Response | Failed, Scripted]:
    inner = Scripted(_in_turn(answers))
    defended = SmoothLLM(inner, SmoothSettings(copies=len(answers), seed=seed))
    conversation = Conversation(messages=as_messages(TEXT, system="Be kind."), prefill="Sure")
    return defended.reply([conversation])[0], inner


def _in_turn(answers: list[str | Failed]) -> Callable[[Conversation], str | Failed]:
    waiting: Iterator[str | Failed] = iter(answers)
    return lambda conversation: next(waiting)


@pytest.mark.parametrize(("kind", "length"), [("swap", 50), ("patch", 50), ("insert", 55)])
def test_ten_percent_of_fifty_characters_are_five(kind: Perturbation, length: int) -> None:
    for seed in range(20):
        text = perturb("\u00e9" * 50, kind, 10, random.Random(seed))  # a letter that is never drawn
        assert len(text) == length
        kept = [place for place, letter in enumerate(text) if letter == "\u00e9"]
        assert len(kept) == (50 if kind == "insert" else 45)
        changed = [place for place, letter in enumerate(text) if letter != "\u00e9"]
        if kind == "patch":
            assert changed == list(range(changed[0], changed[0] + 5))


def test_a_short_text_is_perturbed_too_and_an_empty_one_is_not() -> None:
    assert sum(perturb("\u00e9\u00e9\u00e9", "swap", 10, random.Random(0)).count(mark) for mark in "\u00e9") == 2
    assert perturb("", "patch", 10, random.Random(0)) == ""


def test_only_the_last_user_turn_is_perturbed_each_copy_in_its_own_way_and_alike_every_time() -> None:
    _, inner = _one(["Mix it."] * 6)
    _, again = _one(["Mix it."] * 6)
    assert inner.asked == again.asked
    assert len({conversation.messages[-1].content for conversation in inner.asked}) == 6
    for conversation in inner.asked:
        assert conversation.messages[0].content == "Be kind."
        assert conversation.prefill == "Sure"
        assert conversation.messages[-1].content != TEXT
    other = SmoothLLM(Scripted(lambda _: "x"), SmoothSettings(copies=6, seed=1)).copies(
        Conversation(messages=as_messages(TEXT, system="Be kind."), prefill="Sure")
    )
    assert other != inner.asked


@pytest.mark.parametrize(
    ("answers", "refuses", "odds"),
    [
        (["Mix it.", "Mix it.", NO], False, 1.5 / 2.5),
        ([NO, NO, "Mix it."], True, 2.5 / 1.5),
        (["Mix it.", NO], True, 1.0),  # a tie is no majority for an answer
        (["Mix it.", Failed(cause="down"), ""], False, 0.5 / 1.5),  # neither failures nor silence vote
        ([NO, Failed(cause="down"), "Mix it.", NO], True, 2.5 / 1.5),
    ],
)
def test_votes_by_hand(answers: list[str | Failed], refuses: bool, odds: float) -> None:
    reply, _ = _one(answers)
    assert isinstance(reply, Response)
    assert reply.answer == (NO if refuses else "Mix it.")
    assert reply.log_odds == pytest.approx(math.log(odds))


def test_with_no_copy_answered_it_failed_and_with_none_readable_it_is_unscored() -> None:
    reply, _ = _one([Failed(cause="down"), Failed(cause="away")])
    assert reply == Failed(cause="down")
    reply, _ = _one([Failed(cause="down"), "", "?!?!"])
    assert isinstance(reply, Response)
    assert (reply.answer, reply.log_odds, reply.cause) == ("", None, UNREADABLE)


def test_the_response_given_is_drawn_from_the_majority() -> None:
    drawn = set()
    for seed in range(30):
        reply, _ = _one(["Mix it.", "Knead it.", "Bake it.", NO], seed=seed)
        assert isinstance(reply, Response)
        drawn.add(reply.answer)
    assert drawn == {"Mix it.", "Knead it.", "Bake it."}


def test_a_conversation_is_told_when_its_last_copy_is_there() -> None:
    told: list[int] = []
    inner = Scripted(lambda conversation: "Mix it.")
    given = [Conversation(messages=as_messages(text)) for text in (TEXT, "b" * 30)]
    SmoothLLM(inner, SmoothSettings(copies=3)).reply(given, 9, lambda place, _: told.append(place))
    assert told == [0, 1]
    assert [len(call) for call in inner.calls] == [6]
    assert inner.limits == [9]
