"""Self-consistency by sampled thoughts; with frames it is tested among the wrappers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from forethought.defences.catalogue import make_defence
from forethought.defences.reworded import ConsistencySettings, SelfConsistency
from forethought.models.conversation import Able, Conversation, Response
from forethought.models.local import LocalModel
from tests.scripted import Scripted, as_messages
from tests.tiny import tiny_adapter, tiny_folder

ASKED = Conversation(messages=as_messages("How do I copy a film that I made?"), prefill="<think>\n", think_budget=30)
SAMPLES = Able(prefill=True, sampling=True)


def _thought(odds: float, answer: str) -> Response:
    return Response(answer=answer, decision="refuse" if odds >= 0 else "comply", log_odds=odds)


def _model(greedy: float, sampled: list[float]) -> Scripted:
    """The greedy thought's log-odds, and those of samples by seed; each answers with its own name."""

    def answer(conversation: Conversation) -> Response:
        if not conversation.temperature:
            return _thought(greedy, "greedy")
        return _thought(sampled[conversation.sample_seed], f"sample {conversation.sample_seed}")

    return Scripted(answer, able=SAMPLES)


def test_an_uncertain_verdict_is_sampled_again_with_all_else_alike() -> None:
    model = _model(0.5, [-2.0, -3.0, 0.5])
    defended = SelfConsistency(model, ConsistencySettings(samples=3, temperature=0.8))
    (reply,) = defended.reply([ASKED])
    assert isinstance(reply, Response)
    # (0.5 - 2 - 3 + 0.5) / 4
    assert reply.log_odds == pytest.approx(-1.0)
    assert (reply.decision, reply.answer) == ("comply", "sample 0")
    again = model.asked[1:]
    assert [one.sample_seed for one in again] == [0, 1, 2]
    assert {one.temperature for one in again} == {0.8}
    assert {(one.messages, one.prefill, one.think_budget) for one in again} == {
        (ASKED.messages, ASKED.prefill, ASKED.think_budget)
    }


def test_mean_and_majority_may_differ() -> None:
    """One confident thought moves the mean; it is one of four votes."""
    odds = [-0.2, -0.3, 5.0]
    mean, majority = (
        SelfConsistency(_model(-0.1, odds), ConsistencySettings(samples=3, vote=vote)).reply([ASKED])[0]
        for vote in ("mean", "majority")
    )
    assert isinstance(mean, Response)
    assert isinstance(majority, Response)
    assert mean.log_odds == pytest.approx(1.1)
    assert (mean.decision, mean.answer) == ("refuse", "sample 2")
    assert (majority.decision, majority.answer) == ("comply", "greedy")
    assert majority.log_odds == pytest.approx(math.log(1.5 / 3.5))


def test_a_tied_vote_refuses() -> None:
    (reply,) = SelfConsistency(_model(-0.1, [1.0]), ConsistencySettings(samples=1, vote="majority")).reply([ASKED])
    assert isinstance(reply, Response)
    assert (reply.decision, reply.log_odds) == ("refuse", 0.0)


def test_a_sure_verdict_is_not_sampled() -> None:
    model = _model(2.0, [])
    SelfConsistency(model).reply([ASKED])
    assert len(model.asked) == 1


def test_a_sample_is_not_asked_again_as_itself() -> None:
    sample = ASKED.model_copy(update={"temperature": 0.7, "sample_seed": 3})
    further = SelfConsistency(_model(0.0, []), ConsistencySettings(samples=2)).further(sample)
    assert [one.sample_seed for one in further] == [4, 5]


def test_options_are_written_in_a_spec() -> None:
    defended = make_defence("self_consistency:8,vote=majority,temperature=0.9", _model(0.0, []))
    assert isinstance(defended, SelfConsistency)
    assert (defended.options.samples, defended.options.vote, defended.options.temperature) == (8, "majority", 0.9)


def test_a_local_models_thoughts_differ_and_come_out_the_same_twice(tmp_path: Path) -> None:
    model = LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path), dtype="float32")
    settings = ConsistencySettings(samples=3, margin=1e9, temperature=1.5)
    (own,) = model.reply([ASKED], 4)
    one, other = (SelfConsistency(model, settings).reply([ASKED], 4)[0] for _ in range(2))
    assert isinstance(own, Response)
    assert isinstance(one, Response)
    assert one == other
    assert one.log_odds != pytest.approx(own.log_odds)
