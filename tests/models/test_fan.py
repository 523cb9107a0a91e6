"""Several short texts behind a prompt in one pass: the same log-probabilities as one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from forethought.models import likelihood
from forethought.models.conversation import Conversation
from forethought.models.likelihood import Tree, fits, tree_log_probs
from forethought.models.local import LocalModel
from forethought.records import Message
from tests.tiny import tiny_folder, tiny_model

PROMPTS = [(5, 6, 7), (9,), (3, 4, 5, 6, 7, 8, 9, 10)]
TEXTS = [(11, 12), (11, 12, 13), (11, 14), (15,)]


def test_a_tree_holds_shared_beginnings_once() -> None:
    tree = Tree.of(TEXTS)
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
    found = tree_log_probs(model, PROMPTS, TEXTS)
    for prompt, sums in zip(PROMPTS, found, strict=True):
        for text, summed in zip(TEXTS, sums, strict=True):
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
