"""The two on-policy methods from end to end: SCoT first, once, and then on from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forethought.errors import ConfigError, InputError
from forethought.models.conversation import Conversation, Failed, Response
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.policy import default_policy
from forethought.reasoning import SafetyReasoning
from forethought.records import Example
from forethought.training import grpo
from forethought.training.config import TrainConfig
from forethought.training.methods import reinforced as methods
from forethought.training.methods.base import Job, Material, TrainingMethod
from forethought.training.methods.reinforced import REINFORCED, fitting
from forethought.training.methods.rejection import REJECTION, RejectionSettings
from forethought.training.reward import Reward, RewardWeights, RLSettings, Turn
from forethought.training.run import train_method
from tests.listening import Listening
from tests.scripted import Scripted
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_tokenizer

CONFIG = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, checkpoint_steps=2, seed=3)
SMALL = RLSettings(
    steps=2, requests=2, group=2, max_new_tokens=8, rate_share=0.5, checkpoint_steps=1,
    weights=RewardWeights(free_tokens=4),
)  # fmt: skip


def _examples() -> list[Example]:
    harmful = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(4)]
    styled = harmful[0].model_copy(update={"request": harmful[0].request.restyled("Yo, copy that film", "slang")})
    return [styled, *harmful[1:], *(harmless_example("How do I bake bread" + " today" * n + "?") for n in range(4))]


def _job(method: TrainingMethod, out: Path, on_step: Any = None) -> Job:
    material = Material(_examples(), tiny_tokenizer(), default_policy())
    return Job(str(tiny_folder()), method, material, CONFIG, out, progress=Listening(on_step))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return found


def test_scot_rl_goes_on_from_a_supervised_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int] = []

    def by_length(turn: Turn, wanted: Any, policy: Any, fmt: Any, weights: Any) -> Reward:
        free.append(weights.free_tokens)
        return Reward(value=float(len(turn.text)))

    monkeypatch.setattr(grpo, "reward", by_length)
    # A random model never ends a turn: it would write all the room there is.
    monkeypatch.setattr(methods, "_longest_thought", lambda material: 8)
    monkeypatch.setattr(methods, "_ANSWER_TOKENS", 2)
    method = REINFORCED.model_copy(update={"procedure_settings": SMALL, "answer_with": "base"})
    told: list[Any] = []
    counts = train_method(_job(method, tmp_path, lambda *step: told.append(step)))
    # Two steps over eight rows by fours, then two of GRPO; a bar for each.
    assert [(step, steps) for step, steps, _ in told] == [(1, 2), (2, 2)] * 2
    assert set(told[-1][2]) == {"reward", "passed", "kl"}
    assert counts["steps"] == 2.0
    start, end = _weights(tmp_path / "sft"), _weights(tmp_path)
    assert start.keys() == end.keys()
    assert all(not torch.equal(start[name], end[name]) for name in start)
    settings = read_settings(tmp_path)
    assert (settings.method, settings.answer_with, settings.seen_operators) == ("scot_rl", "base", ("slang",))
    assert read_settings(tmp_path / "sft").method == "scot"
    assert set(free) == {8}
    (reply,) = LocalModel.load(str(tmp_path)).reply([Conversation(messages=_examples()[0].request.messages)], 4)
    assert isinstance(reply, Response)
    assert reply.log_odds is not None
    # Once more: nothing is left to do, and nothing changes.
    told.clear()
    train_method(_job(method, tmp_path, lambda *step: told.append(step)))
    assert told == []
    assert all(torch.equal(end[name], one) for name, one in _weights(tmp_path).items())


def test_rows_with_long_thoughts_get_room_for_them() -> None:
    small = RLSettings(max_new_tokens=64)
    assert fitting(small, 10) == small
    wide = fitting(small, 200)
    assert (wide.max_new_tokens, wide.weights.free_tokens) == (248, 200)


def test_what_cannot_be_trained_fails_before_the_supervised_model_is(tmp_path: Path) -> None:
    harmful = [example for example in _examples() if example.term == "refusal"]
    job = _job(REINFORCED, tmp_path)
    with pytest.raises(InputError, match="harmful and harmless rows"):
        train_method(dataclasses.replace(job, material=dataclasses.replace(job.material, examples=harmful)))
    assert not (tmp_path / "sft").exists()


def test_several_processes_do_not_write_one_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        train_method(_job(REJECTION, tmp_path))


def test_scot_rejection_trains_again_on_its_own_right_thoughts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random model has none of its own: one that says the same of everything stands for it."""

    def answer(conversation: Conversation) -> Response | Failed:
        verdict = "refuse" if "film" in conversation.messages[-1].content else "comply"
        thought = SafetyReasoning.model_validate({"intent": "copy a film or bake some bread", "verdict": verdict})
        odds = 2.0 if verdict == "refuse" else -2.0
        return Response(answer="", reasoning=thought, decision=thought.verdict, log_odds=odds)

    loaded: list[str] = []

    def load(name: str) -> Scripted:
        loaded.append(name)
        return Scripted(answer)

    monkeypatch.setattr(LocalModel, "load", load)
    method = REJECTION.model_copy(update={"procedure_settings": RejectionSettings(samples=2)})
    told: list[Any] = []
    counts = train_method(_job(method, tmp_path, lambda *step: told.append(step)))
    assert loaded == [str(tmp_path / "sft")]
    assert [(step, steps) for step, steps, _ in told] == [(1, 2), (2, 2)] * 2
    assert counts["rows"] == 8.0
    start, end = _weights(tmp_path / "sft"), _weights(tmp_path)
    assert start.keys() == end.keys()
    assert all("lora_" in name for name in end)
    assert any(not torch.equal(start[name], end[name]) for name in start)
    settings = read_settings(tmp_path)
    assert (settings.method, settings.seen_operators) == ("scot_rejection", ("slang",))
