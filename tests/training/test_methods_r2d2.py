"""R2D2: the pool is kept up with the model and with its checkpoints, and the losses are those of the paper."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from forethought.chat import encode_prompt
from forethought.errors import InputError, ModelError
from forethought.policy import default_policy
from forethought.records import user_request
from forethought.training.config import TrainConfig
from forethought.training.forward import add_taught_head
from forethought.training.methods.base import Job, Material
from forethought.training.methods.catalogue import all_methods
from forethought.training.methods.r2d2 import (
    PAPER,
    POOL,
    PoolSetting,
    SuffixObjective,
    SuffixPool,
    away_loss,
    pool_of,
)
from forethought.training.objective import Step
from forethought.training.rows import IGNORED, collate
from forethought.training.run import train_method
from tests.listening import Listening
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_model, tiny_tokenizer

SMALL = PoolSetting(size=3, updated=2, candidates=8, top_k=16, length=5, reset_every=2, reset_share=0.34)


@pytest.fixture(scope="module")
def material() -> Material:
    harmful = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(4)]
    harmless = [harmless_example("How do I bake bread" + " today" * n + "?") for n in range(6)]
    styled = harmful[0].model_copy(update={"request": harmful[0].request.restyled("Yo, a film", "slang")})
    return Material([*harmful, styled, *harmless], tiny_tokenizer(), default_policy())


@pytest.fixture
def adapted() -> Any:
    torch.manual_seed(0)
    model = tiny_model()
    add_taught_head(model)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.5, task_type="CAUSAL_LM")
    return get_peft_model(model, config).train()


def _objective(material: Material, file: Path, setting: PoolSetting = SMALL) -> SuffixObjective:
    return SuffixObjective(pool_of(material, setting), setting, material.tokenizer, file)


# The pool.


def test_the_pool_holds_plain_harmful_requests_with_a_refusal(material: Material) -> None:
    cases = pool_of(material, SMALL)
    assert len(cases) == 3
    assert all(case.request.operator is None for case in cases)
    assert cases[0].target_string.startswith("Sure, here is help me copy")
    assert pool_of(material, SMALL) == cases
    assert len(pool_of(material, PAPER)) == 4


def test_the_papers_numbers() -> None:
    assert (PAPER.size, PAPER.updated, PAPER.gcg_steps, PAPER.candidates) == (180, 8, 5, 512)
    assert (PAPER.reset_every, PAPER.reset_share) == (50, 0.2)


def test_a_pool_goes_on_from_any_step(tmp_path: Path) -> None:
    """Steps that are done again after a checkpoint replace those that were done after it."""
    setting = SMALL.model_copy(update={"size": 10, "reset_share": 0.5})
    pool = SuffixPool(setting, 10, tmp_path / POOL)
    states = []
    for step in range(6):
        states.append(dict(pool.before(step)))
        pool.keep(step, {place: (step, place) for place in pool.chosen(step)})
    for step in (4, 2):
        again = SuffixPool(setting, 10, tmp_path / POOL)
        assert again.before(step) == states[step]
    assert len((tmp_path / POOL).read_text(encoding="utf-8").splitlines()) == 2
    with pytest.raises(ModelError, match="lacks suffixes of steps before 5"):
        SuffixPool(setting, 10, tmp_path / POOL).before(5)
    # Resets do happen, or this would prove little.
    assert any(place in states[step - 1] and place not in states[step] for step in (2, 4) for place in range(10))


def test_a_line_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    pool = SuffixPool(SMALL, 3, tmp_path / POOL)
    pool.before(0)
    pool.keep(0, {1: (7, 8)})
    with (tmp_path / POOL).open("a", encoding="utf-8") as file:
        file.write('{"id":"1","val')
    assert SuffixPool(SMALL, 3, tmp_path / POOL).before(1) == {1: (7, 8)}


# The attack and the losses.


def test_gcg_makes_the_wanted_string_likelier_on_the_model_as_it_is(
    adapted: Any, material: Material, tmp_path: Path
) -> None:
    setting = SMALL.model_copy(update={"gcg_steps": 6, "candidates": 32})
    objective = _objective(material, tmp_path / POOL, setting)

    def likely(ids: tuple[int, ...]) -> float:
        batch = collate([objective.rows(0, ids)[0].model_dump()], 0)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        with torch.no_grad():
            return float(adapted.eval()(**inputs, taught_only=True).log_probs.sum())

    before = likely(())
    adapted.train()
    found = objective.refreshed(adapted, 0, (), 0)
    assert adapted.training
    assert likely(found) > before + 1.0
    assert objective.refreshed(adapted, 0, (), 0) == found
    assert all(parameter.grad is None for parameter in adapted.parameters())


def test_a_suffix_is_trained_on_as_it_is_sent(material: Material, tmp_path: Path) -> None:
    """The row's prompt is what the chat template makes of the text."""
    objective = _objective(material, tmp_path / POOL)
    wanted, refusal = objective.rows(1, ())
    prompt = wanted.input_ids[: wanted.labels.index(next(one for one in wanted.labels if one != IGNORED))]
    text = objective.cases[1].request.text + " !" * SMALL.length
    assert list(prompt) == encode_prompt(material.tokenizer, user_request(text).messages)
    assert refusal.input_ids[: len(prompt)] == prompt
    assert tiny_tokenizer().decode([one for one in wanted.labels if one != IGNORED]).startswith("Sure, here is")


def test_away_by_hand() -> None:
    log_probs = torch.tensor([[math.log(0.25), -6.0, math.log(0.5)]])
    taught = torch.tensor([[True, True, False]])
    # The second token is unlikely enough, the third is not taught.
    assert float(away_loss(log_probs, taught)) == pytest.approx(-math.log(0.75) / 2)


def test_the_loss_is_the_sum_of_its_terms(adapted: Any, material: Material, tmp_path: Path) -> None:
    objective = dataclasses.replace(_objective(material, tmp_path / POOL), away_weight=2.0, toward_weight=3.0)
    rows = all_methods()["r2d2"].rows(material)[:2]
    adapted.eval()
    with torch.no_grad():
        loss, values = objective.loss(adapted, collate([row.model_dump() for row in rows], 0), Step())
    assert set(values) == {"benign", "away", "toward"}
    assert float(loss) == pytest.approx(values["benign"] + 2 * values["away"] + 3 * values["toward"], rel=1e-5)


# The method.


def _job(material: Material, out: Path, **settings: Any) -> Job:
    config = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, batch_size=2, seed=3, checkpoint_steps=1, **settings)
    method = all_methods()["r2d2"].model_copy(update={"procedure_settings": SMALL})
    return Job(str(tiny_folder()), method, material, config, out)


class _Killed(Exception):
    pass


@pytest.mark.parametrize("full", [False, True])
def test_a_stopped_training_ends_as_if_it_had_not_been(material: Material, tmp_path: Path, full: bool) -> None:
    """Stopped after step 2, it goes on from the checkpoint of step 1 with the pool of then; the adapter alone moves."""
    how: dict[str, Any] = {"method": "full", "learning_rate": 1e-3} if full else {}
    config = {"learning_rate": 1e-2} | how
    job = _job(material, tmp_path / "whole")
    job = dataclasses.replace(job, config=job.config.model_copy(update=config))
    counts = train_method(job)
    assert counts["steps"] == 3
    assert counts["pool"] == 3
    file = "model.safetensors" if full else "adapter_model.safetensors"
    weights = load_file(job.out / file)
    if not full:
        assert all("lora_" in key for key in weights)
        assert any(tensor.any() for key, tensor in weights.items() if "lora_B" in key)

    def stop(step: int, *_: Any) -> None:
        if step == 2:
            raise _Killed

    stopped = dataclasses.replace(job, out=tmp_path / "stopped", progress=Listening(stop))
    with pytest.raises(_Killed):
        train_method(stopped)
    train_method(dataclasses.replace(stopped, progress=Listening()))
    assert (tmp_path / "stopped" / POOL).read_bytes() == (tmp_path / "whole" / POOL).read_bytes()
    again = load_file(tmp_path / "stopped" / file)
    assert all(torch.equal(again[key], weights[key]) for key in weights)


def test_it_needs_a_harmful_request(material: Material, tmp_path: Path) -> None:
    harmless = dataclasses.replace(material, examples=material.examples[4:])
    with pytest.raises(InputError, match="no harmful request"):
        train_method(_job(harmless, tmp_path))
