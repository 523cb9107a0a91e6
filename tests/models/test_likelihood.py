"""Log-probabilities are those of a plain forward pass, however they are batched and shared, one by one or as a tree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from forethought.chat import encode_prompt
from forethought.errors import InputError
from forethought.models import likelihood, prefix
from forethought.models.conversation import Conversation
from forethought.models.likelihood import Tree, fits, tree_log_probs
from forethought.models.local import LocalModel
from forethought.records import Message
from tests.scripted import as_messages
from tests.tiny import tiny_folder, tiny_model

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
        monkeypatch.setattr(likelihood, "_WAVE", 5)
        monkeypatch.setattr(likelihood, "_LOGITS", 8)
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
    monkeypatch.setattr(likelihood, "batch_of", counted)
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


TREE_PROMPTS = [(5, 6, 7), (9,), (3, 4, 5, 6, 7, 8, 9, 10)]
TREE_TEXTS = [(11, 12), (11, 12, 13), (11, 14), (15,)]


def test_a_tree_holds_shared_beginnings_once() -> None:
    tree = Tree.of(TREE_TEXTS)
    assert tree.tokens == [11, 12, 13, 14, 15]
    assert tree.parents == [-1, 0, 1, 0, -1]
    assert tree.depths == [0, 1, 2, 1, 0]
    assert tree.ends == [[0, 1], [0, 1, 2], [0, 3], [4]]
    assert tree.forks == [-1, 0, 1]
    assert tree.sees().tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, False, False, True, False],
        [False, False, False, False, True],
    ]


def test_each_text_is_as_likely_as_by_itself() -> None:
    model = tiny_model()
    found = tree_log_probs(model, TREE_PROMPTS, TREE_TEXTS)
    for prompt, sums in zip(TREE_PROMPTS, found, strict=True):
        for text, summed in zip(TREE_TEXTS, sums, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *text]])).logits[0].log_softmax(-1)
            alone = sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(text))
            assert summed == pytest.approx(alone, abs=1e-4)


def test_questions_of_one_prompt_are_read_as_a_tree_and_answered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalModel.load(str(tiny_folder()))
    asked = [Conversation(messages=(Message(role="user", content=text),)) for text in ("Bake bread", "Copy a film now")]
    openings = [
        "I can't",
        "I cannot",
        "Sorry",
        "I am unable to say any of this",
    ]
    conversations = [one for one in asked for _ in openings]
    passes: list[int] = []

    def counted(*arguments: Any) -> Any:
        passes.append(len(arguments[2]))
        return tree_log_probs(*arguments)

    monkeypatch.setattr(likelihood, "tree_log_probs", counted)
    as_tree = model.log_probs(conversations, openings * 2)
    assert passes, "no tree was read"
    monkeypatch.setattr(likelihood, "fits", lambda config: False)
    # In bfloat16, where the machine has it, a sum of some 30 nats keeps two digits behind the point.
    assert as_tree == pytest.approx(model.log_probs(conversations, openings * 2), abs=0.05)
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("config", "so"),
    [
        ({"rope_theta": 1e4, "_attn_implementation": "sdpa"}, True),
        ({"rope_parameters": {}, "_attn_implementation": "eager", "layer_types": ["full_attention"]}, True),
        ({"rope_theta": 1e4, "_attn_implementation": "flash_attention_2"}, False),
        ({"rope_theta": 1e4, "_attn_implementation": "sdpa", "sliding_window": 4096}, False),
        ({"rope_theta": 1e4, "_attn_implementation": "sdpa", "layer_types": ["linear_attention"]}, False),
        ({"_attn_implementation": "sdpa"}, False),
    ],
)
def test_models_that_take_no_mask_of_ours_are_known(config: dict[str, Any], so: bool) -> None:
    assert fits(SimpleNamespace(**config)) is so
