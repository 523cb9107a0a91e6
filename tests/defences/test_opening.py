"""The score of a model without a verdict: the log-odds of its turn opening with a refusal."""

from __future__ import annotations

import math

import pytest

from forethought.defences.likelihood import OPENINGS, OpeningScore
from forethought.errors import ConfigError, InputError
from forethought.models.conversation import Conversation, Failed, Response
from forethought.models.local import LocalModel
from forethought.records import Message
from tests.scripted import Scripted
from tests.tiny import tiny_model, tiny_tokenizer


def _asked(text: str) -> Conversation:
    return Conversation(messages=(Message(role="user", content=text),))


def test_the_probabilities_of_the_openings_add_up_to_the_odds() -> None:
    chances = {"I can't": 0.5, "Sorry": 0.25}
    model = Scripted(lambda _: "Bread.", log_prob=lambda _, text, first: math.log(chances.get(text, 1e-30)))
    (reply,) = OpeningScore(model).reply([_asked("bread?")])
    assert isinstance(reply, Response)
    assert reply.answer == "Bread."
    assert reply.log_odds == pytest.approx(math.log(0.75 / 0.25))


def test_replies_are_told_with_their_score_and_a_verdict_keeps_its_own() -> None:
    def answer(conversation: Conversation) -> str | Response | Failed:
        text = conversation.messages[-1].content
        if text == "fails":
            return Failed(cause="broken")
        return Response(answer="x", decision="refuse", log_odds=9.0) if text == "thinks" else "y"

    told: dict[int, Response | Failed] = {}
    model = OpeningScore(Scripted(answer, log_prob=lambda *_: math.log(1 / (2 * len(OPENINGS)))))
    replies = model.reply([_asked("plain"), _asked("thinks"), _asked("fails")], on_reply=told.__setitem__)
    assert [told[place] for place in range(3)] == replies
    first, second, third = replies
    assert isinstance(first, Response)
    assert first.log_odds == pytest.approx(0.0, abs=1e-9)
    assert isinstance(second, Response)
    assert second.log_odds == 9.0
    assert third == Failed(cause="broken")


def test_one_prompt_without_a_likelihood_costs_the_others_nothing() -> None:
    def log_prob(conversation: Conversation, text: str, first: bool) -> float:
        if conversation.messages[-1].content == "too long":
            raise InputError("the prompt", "is too long", "Shorten it")
        return -10.0

    replies = OpeningScore(Scripted(lambda _: "a", log_prob=log_prob)).reply([_asked("too long"), _asked("short")])
    assert [reply.log_odds is None for reply in replies if isinstance(reply, Response)] == [True, False]


def test_no_opening_begins_with_another() -> None:
    for one in OPENINGS:
        assert not any(other != one and other.startswith(one) for other in OPENINGS), one


def test_a_model_without_log_probabilities_is_told_so() -> None:
    with pytest.raises(ConfigError, match="tells no log-probabilities"):
        OpeningScore(Scripted(lambda _: "a"))


def test_a_real_model_is_scored_and_answers_as_before() -> None:
    model = LocalModel(tiny_model(), tiny_tokenizer(), None)
    asked = [_asked("How do I bake bread?"), _asked("Name a river.")]
    plain, scored = model.reply(asked, 4), OpeningScore(model).reply(asked, 4)
    for before, after in zip(plain, scored, strict=True):
        assert isinstance(before, Response)
        assert isinstance(after, Response)
        assert after.model_copy(update={"log_odds": None}) == before
        assert after.log_odds is not None
