"""Log-probabilities are those of a plain forward pass, however they are batched and shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forethought.chat import encode_prompt
from forethought.errors import InputError
from forethought.models import prefix
from forethought.models.conversation import Conversation
from forethought.models.local import LocalModel
from tests.scripted import as_messages
from tests.tiny import tiny_folder

TARGETS = ("Sure, here is a table", " Yes", "Sure", "The sky is green, and the grass is blue, and so on and on")


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel.load(str(tiny_folder()), dtype="float32")


def _conversations() -> list[Conversation]:
    """Near-identical ones as a random search makes them, others, and one with a prefill."""
    near = [
        Conversation(messages=as_messages(f"Name the planets in order. {end}")) for end in ("! !", "? !", "? ? x y")
    ]
    other = Conversation(messages=as_messages("Hi", "Be brief."))
    return [*near, other, other.model_copy(update={"prefill": "<think>\n\n</think>\n\n"}), near[0]]


def _plain(model: LocalModel, conversation: Conversation, target: list[int]) -> float:
    """One row, no cache, no padding."""
    prompt = encode_prompt(model.tokenizer, conversation.messages) + model.ids(conversation.prefill)
    with torch.no_grad():
        logits = model.model(torch.tensor([prompt + target])).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(target))


@pytest.mark.parametrize("small", [False, True])
def test_they_are_those_of_a_plain_pass(model: LocalModel, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small:  # waves, passes and logits in pieces
        monkeypatch.setattr(prefix, "_WAVE", 5)
        monkeypatch.setattr(prefix, "_LOGITS", 8)
        monkeypatch.setattr(prefix, "PASS_TOKENS", 120)
    pairs = [(conversation, target) for conversation in _conversations() for target in TARGETS]
    found = model.log_probs([conversation for conversation, _ in pairs], [target for _, target in pairs])
    assert found == [pytest.approx(_plain(model, c, model.ids(t)), abs=1e-3) for c, t in pairs]
    assert len(set(found)) == 20  # all differ but those of the repeated conversation


def test_first_token_alone(model: LocalModel) -> None:
    conversation = _conversations()[0]
    whole, first = model.log_probs([conversation] * 2, [TARGETS[0]] * 2, [False, True])
    assert first == pytest.approx(_plain(model, conversation, model.ids(TARGETS[0])[:1]), abs=1e-3)
    assert whole < first < 0
    assert model.log_probs([conversation], [TARGETS[0]], True) == [pytest.approx(first, abs=1e-4)]


def test_shared_beginnings_are_read_once_and_equal_questions_not_twice(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    own = prefix.batch_of

    def counted(nodes: Any, device: Any) -> Any:
        read.append(sum(len(node.tokens) for node in nodes))
        return own(nodes, device)

    monkeypatch.setattr(prefix, "batch_of", counted)
    text = "Tell me a long story about a ship that sails around the world and comes home in the winter. "
    near = [Conversation(messages=as_messages(text + end)) for end in "abcdefgh"] * 3
    model.log_probs(near, ["Sure"] * len(near))
    whole = len(encode_prompt(model.tokenizer, near[0].messages))
    assert sum(read) < whole + 8 * 12


def test_what_has_no_log_probability_is_an_error(model: LocalModel) -> None:
    conversation = _conversations()[0]
    with pytest.raises(InputError, match="no tokens"):
        model.log_probs([conversation], [""])
    long = Conversation(messages=as_messages("word " * 2200))
    with pytest.raises(InputError, match="context"):
        model.log_probs([long], ["Sure"])
    assert model.log_probs([], []) == []
