"""GRPO: turns that are the policy's own, a reward that moves it, and a killed run that ends the same."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forethought.chat import encode_prompt
from forethought.errors import ConfigError, InputError, ModelError
from forethought.models.decode import Row
from forethought.policy import default_policy
from forethought.records import Example
from forethought.training import grpo
from forethought.training.config import TrainConfig
from forethought.training.grpo import in_order, optimise, roll_out, turn_of
from forethought.training.methods.base import Job, Material
from forethought.training.methods.reinforced import reinforce
from forethought.training.methods.supervised import SCOT
from forethought.training.reward import Reward, RLSettings, Turn, sample_seed
from tests.child import code
from tests.listening import Listening
from tests.tiny import harmful_example, harmless_example, tiny_adapter, tiny_folder, tiny_model, tiny_tokenizer

CONFIG = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, warmup=0.0, seed=3)
SETTINGS = RLSettings(steps=1, requests=2, group=4, max_new_tokens=8, rate_share=0.01, beta=0.0, checkpoint_steps=1)
EXAMPLES = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(3)] + [
    harmless_example("How do I bake bread" + " today" * n + "?") for n in range(3)
]


def adapter(folder: Path) -> Path:
    """Stands for the supervised model: a random adapter with its tokenizer."""
    tiny_tokenizer().save_pretrained(str(tiny_adapter(folder)))
    return folder


def job(out: Path, on_step: Any = None, base: str = "") -> Job:
    material = Material(EXAMPLES, tiny_tokenizer(), default_policy())
    return Job(base or str(tiny_folder()), SCOT, material, CONFIG, out, progress=Listening(on_step))


def by_length(turn: Turn, *rest: Any) -> Reward:
    """A reward that a random model can earn: even and odd lengths differ."""
    return Reward(value=float(len(turn.text) % 2))


# The order of requests


def test_every_step_has_both_terms_and_all_rows_come_round() -> None:
    order = in_order(EXAMPLES, SETTINGS.model_copy(update={"steps": 6, "requests": 4}), 0)
    assert len(order) == 24
    for step in range(6):
        assert Counter(example.term for example in order[4 * step : 4 * step + 4]) == {"refusal": 2, "benign": 2}
    assert set(Counter(example.request.id for example in order).values()) == {4}
    assert order != in_order(EXAMPLES, SETTINGS.model_copy(update={"steps": 6, "requests": 4}), 1)


def test_rows_of_both_terms_are_needed_and_torn_labels_are_left_out() -> None:
    torn = [
        one.model_copy(update={"request": one.request.model_copy(update={"harmful": True})}) for one in EXAMPLES[3:]
    ]
    with pytest.raises(InputError, match="harmful and harmless rows"):
        in_order([*EXAMPLES[:3], *torn], SETTINGS, 0)


def test_settings_that_it_cannot_keep_to_are_an_error(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"quantize": "4bit"})
    with pytest.raises(ConfigError, match="quantize: 4bit"):
        reinforce(dataclasses.replace(job(tmp_path), config=config), SETTINGS)


# Rollouts


def _rolled(model: Any, seeds: list[int]) -> list[Row]:
    messages = [EXAMPLES[0].request.messages] * len(seeds)
    return roll_out(model, tiny_tokenizer(), messages, seeds, "think", 1.0, 12)


def test_turns_begin_as_at_inference_and_each_seed_is_its_own() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.train()
    one, other, again = _rolled(model, [1, 2, 1])
    assert model.training
    opening = list(tokenizer("<think>\n", add_special_tokens=False)["input_ids"])
    assert one.prompt == encode_prompt(tokenizer, EXAMPLES[0].request.messages) + opening
    assert one.made == again.made
    assert one.made != other.made
    assert one.made == _rolled(model, [1])[0].made
    assert len({sample_seed(0, step, place) for step in range(5) for place in range(5)}) == 25


def test_a_turn_counts_the_tokens_of_its_thought() -> None:
    tokenizer = tiny_tokenizer()

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    thought = "Intent: copy a film.\nVerdict: refuse.\n"
    turn = turn_of(tokenizer, [*ids(f"{thought}</think>\nI can't help."), tokenizer.eos_token_id], "think")
    assert turn.text == f"<think>\n{thought}</think>\nI can't help."
    assert turn.thought_tokens == len(ids(thought))
    endless = ids("Intent: and so on and on")
    assert turn_of(tokenizer, endless, "think").thought_tokens == len(endless)


# Training


class _Seen:
    """What went through one run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns: list[Row] = []
        self.rewarded: list[tuple[str, Example]] = []
        self.held: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        load, roll = grpo._policy_model, roll_out

        def loaded(*args: Any) -> tuple[Any, Any]:
            model, tokenizer = load(*args)
            self.held = [(name, one, one.detach().clone()) for name, one in model.named_parameters()]
            return model, tokenizer

        def rolled(*args: Any) -> list[Row]:
            self.turns += (made := roll(*args))
            return made

        def rewarded(turn: Turn, example: Example, *rest: Any) -> Reward:
            self.rewarded.append((turn.text, example))
            return by_length(turn)

        monkeypatch.setattr(grpo, "_policy_model", loaded)
        monkeypatch.setattr(grpo, "roll_out", rolled)
        monkeypatch.setattr(grpo, "reward", rewarded)


def _log_probs(folder: Path, turns: list[Row]) -> torch.Tensor:
    """Mean log-probability of each turn's tokens under an adapter."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(tiny_model(), str(folder)).eval()
    found = []
    with torch.no_grad():
        for turn in turns:
            ids = torch.tensor([turn.prompt + turn.made])
            logits = model(ids).logits[0, len(turn.prompt) - 1 : -1].log_softmax(-1)
            found.append(logits.gather(-1, torch.tensor(turn.made)[:, None]).mean())
    return torch.stack(found)


def test_a_step_moves_the_adapter_alone_and_towards_what_was_rewarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _Seen(monkeypatch)
    start, out = adapter(tmp_path / "start"), tmp_path / "out"
    told: list[Any] = []
    counts = optimise(start, job(out, lambda *step: told.append(step)), SETTINGS)
    moved = {name for name, now, before in seen.held if not torch.equal(now, before)}
    assert moved == {name for name, _, _ in seen.held if "lora_" in name}
    before, after = load_file(start / "adapter_model.safetensors"), load_file(out / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    # Each turn is judged by what its own request wants.
    assert [example.request.text for _, example in seen.rewarded] == [
        example.request.text for example in in_order(EXAMPLES, SETTINGS, CONFIG.seed) for _ in range(4)
    ]
    tokenizer = tiny_tokenizer()
    read = [turn_of(tokenizer, turn.made, "think") for turn in seen.turns]
    assert [text for text, _ in seen.rewarded] == [turn.text for turn in read]
    values = [by_length(turn).value for turn in read]
    assert told == [(1, 1, {"reward": pytest.approx(sum(v or 0 for v in values) / 8), "passed": 1.0})]
    change = _log_probs(out, seen.turns) - _log_probs(start, seen.turns)
    better = torch.tensor([value == 1.0 for value in values])
    assert change[better].mean() > 0 > change[~better].mean()
    assert counts["steps"] == 1.0
    assert counts["tokens"] == sum(len(turn.prompt) + len(turn.made) for turn in seen.turns)
    with pytest.raises(ModelError, match="another training"):
        optimise(start, job(out), SETTINGS.model_copy(update={"temperature": 0.5}))


def test_full_weights_are_trained_on_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a copy of the supervised model where the divergence counts."""
    monkeypatch.setattr(grpo, "reward", by_length)
    full = dataclasses.replace(job(tmp_path), config=CONFIG.model_copy(update={"method": "full"}))
    told: list[Any] = []
    settings = SETTINGS.model_copy(update={"beta": 0.04})
    optimise(tiny_folder(), dataclasses.replace(full, progress=Listening(lambda *step: told.append(step))), settings)
    assert "kl" in told[0][2]
    before, after = (load_file(at / "model.safetensors") for at in (tiny_folder(), tmp_path))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_equal_rewards_and_none_move_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group without a difference has no advantage; a row without a label has no reward at all."""
    monkeypatch.setattr(
        grpo, "reward", lambda turn, example, *rest: Reward(value=None if example.term == "refusal" else -1.0)
    )
    start = adapter(tmp_path / "start")
    optimise(start, job(tmp_path / "out"), SETTINGS)
    before, after = (load_file(at / "adapter_model.safetensors") for at in (start, tmp_path / "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)


RESUMED = SETTINGS.model_copy(update={"steps": 3, "beta": 0.04, "group": 2, "max_new_tokens": 4})
_CHILD = """
import sys, time
from pathlib import Path
from forethought.training import grpo
from tests.training.test_grpo import RESUMED, by_length, job

out = Path(sys.argv[2])
grpo.reward = by_length

def hang(step, steps, told):
    if step == 2:
        (out / "at-step-2").touch()
        time.sleep(600)

grpo.optimise(Path(sys.argv[1]), job(out, hang, sys.argv[3]), RESUMED)
"""


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with two updates done and one saved. The divergence stays that from the supervised model."""
    monkeypatch.setattr(grpo, "reward", by_length)
    start, whole, cut = adapter(tmp_path / "start"), tmp_path / "whole", tmp_path / "cut"
    cut.mkdir()
    child = code(_CHILD, start, cut, tiny_folder())
    optimise(start, job(whole), RESUMED)
    child.kill_once((cut / "at-step-2").exists)
    assert not (cut / "adapter_model.safetensors").exists()
    told: list[int] = []
    optimise(start, job(cut, lambda step, *rest: told.append(step)), RESUMED)
    assert told == [2, 3]
    one, other = (load_file(at / "adapter_model.safetensors") for at in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (whole / "ref").exists()  # what is saved is the policy, not the copy it is compared with
