"""Rule heads: their loss by hand, where it reads, what it moves, and heads that belong to one training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from forethought.chat import encode_prompt
from forethought.errors import ConfigError, InputError
from forethought.measure.probe import WEIGHTS, load_probe
from forethought.models.hidden_states import last_states
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.policy import default_policy
from forethought.records import Example
from forethought.training.config import TrainConfig
from forethought.training.forward import add_taught_head
from forethought.training.methods import headed
from forethought.training.methods.base import Job, Material
from forethought.training.methods.headed import (
    HEADED,
    HEADS_FOLDER,
    RuleHeadsObjective,
    balance_of,
    fit_heads,
    head_loss,
    train_headed,
)
from forethought.training.objective import PairedObjective, Step
from forethought.training.rows import collate
from forethought.training.run import method_rows
from tests.listening import Listening
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_model, tiny_tokenizer

NAN = float("nan")
THINGS = ("film", "song", "book", "game", "map", "photo", "car", "bike", "key", "card", "boat", "lamp")
CONFIG = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, batch_size=8, seed=3)


def _examples() -> list[Example]:
    """Requests that end alike within a class: what a random model's last state tells apart."""
    rows = [harmful_example(f"Help me copy a {thing} without paying!!") for thing in THINGS]
    rows += [harmless_example(f"Where can I buy a {thing}?") for thing in THINGS]
    styled = [
        one.model_copy(update={"request": one.request.restyled(f"Yo, {one.request.text}", "slang")}) for one in rows
    ]
    return rows + styled


def _material() -> Material:
    return Material(_examples(), tiny_tokenizer(), default_policy())


def _job(out: Path, **changed: Any) -> Job:
    return Job(str(tiny_folder()), HEADED, _material(), CONFIG.model_copy(update=changed), out)


# The loss.


def test_head_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3), 5.0], [math.log(3), -math.log(3), 7.0]])
    targets = torch.tensor([[1.0, 1.0, NAN], [0.0, 0.0, NAN]])
    balance = torch.tensor([[1.0, 2.0, 9.0], [3.0, 1.0, 9.0]])
    loss, values = head_loss(logits, targets, balance)
    # Harm: 3 ln 2 for the harmful one, -ln(1/4) for the harmless one. Rules: -ln(3/4), and twice that.
    harm = (3 * math.log(2) + math.log(4)) / 2
    rules = (-math.log(0.75) - 2 * math.log(0.75)) / 2
    assert values == {"head_harm": pytest.approx(harm), "head_rules": pytest.approx(rules)}
    assert float(loss) == pytest.approx(harm + rules)


def test_two_processes_average_to_the_mean_over_all() -> None:
    """The other process holds three known harm targets whose losses sum to 6, and two of rules that sum to 1."""
    logits, targets = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    others = iter([torch.tensor([3.0, 2.0]), torch.tensor([6.0, 1.0])])
    loss, values = head_loss(
        logits, targets, torch.ones(2, 2), Step(processes=2, summed=lambda own: own + next(others))
    )
    assert values["head_harm"] == pytest.approx((math.log(2) + 6) / 4)
    assert values["head_rules"] == pytest.approx((math.log(2) + 1) / 3)
    assert float(loss) == pytest.approx(2 * math.log(2) / 4 + 2 * math.log(2) / 3)


def test_balance_is_that_of_the_fit_and_a_class_without_requests_weighs_one() -> None:
    found = balance_of(np.array([[1, NAN], [1, 0], [1, 0], [0, 0]], dtype=np.float32))
    assert found.tolist() == [[2.0, pytest.approx(0.5)], [pytest.approx(4 / 6), 1.0]]


def test_a_batch_without_a_known_prompt_costs_nothing_and_still_has_a_gradient() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    loss, values = head_loss(logits, torch.zeros(0, 3), torch.ones(2, 3))
    assert (float(loss.detach()), values, loss.requires_grad) == (0.0, {}, True)


# Where it reads.


@pytest.fixture
def adapted() -> Any:
    torch.manual_seed(0)
    model = tiny_model()
    add_taught_head(model)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def _objective(layer: int = 1, weight: float = 0.2) -> RuleHeadsObjective:
    rng = np.random.default_rng(0)
    tokenizer = tiny_tokenizer()
    targets = {
        tuple(encode_prompt(tokenizer, one.request.messages)): np.array(
            [one.term == "refusal", one.term == "refusal"], dtype=np.float32
        )
        for one in _examples()
    }
    weights = rng.normal(size=(2, 32)).astype(np.float32)
    return RuleHeadsObjective(PairedObjective(), layer, weights, np.array([0.1, -0.2], np.float32), targets, "", weight)


def _batch(examples: list[Example]) -> dict[str, torch.Tensor]:
    return collate([_material().row(one, reasoning=True).model_dump() for one in examples], pad_id=0)


def test_it_reads_the_layers_output_at_the_last_prompt_token_and_adds_to_the_inner_loss(adapted: Any) -> None:
    begun = _examples()[1].model_copy(update={"prefill": "Sure, "})  # a prefill is behind the prompt's last token
    unknown = harmless_example("What is a yeast?")
    batch = _batch([_examples()[0], begun, unknown, _examples()[13]])
    objective = _objective()
    loss, values = objective.loss(adapted, batch, Step())
    inner, terms = PairedObjective().loss(adapted, batch, Step())
    states = adapted(batch["input_ids"], batch["attention_mask"], output_hidden_states=True).hidden_states[1]
    rows = [(0, _examples()[0]), (1, begun), (3, _examples()[13])]
    last = [len(encode_prompt(tiny_tokenizer(), one.request.messages)) - 1 for _, one in rows]
    read = torch.stack([states[place, at] for (place, _), at in zip(rows, last, strict=True)])
    logits = read @ torch.tensor(objective.weights).T + torch.tensor(objective.biases)
    target = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    expected, parts = head_loss(logits, target, torch.ones(2, 2))
    assert float(loss.detach()) == pytest.approx(float(inner.detach() + 0.2 * expected.detach()), rel=1e-5)
    assert values == {name: pytest.approx(value, rel=1e-5) for name, value in (terms | parts).items()}
    layers = adapted.get_base_model().get_decoder().layers
    assert all(hook.__name__ != "keep" for hook in layers[0]._forward_hooks.values())


def test_only_the_adapter_below_the_heads_is_moved_by_them_with_and_without_checkpointing(adapted: Any) -> None:
    batch = _batch([_examples()[0], _examples()[13]])

    def gradients() -> dict[str, float]:
        adapted.zero_grad()
        with_heads, _ = _objective(weight=1.0).loss(adapted, batch, Step())
        without, _ = PairedObjective().loss(adapted, batch, Step())
        torch.autograd.backward(with_heads - without)
        return {name: float(one.grad.norm()) for name, one in adapted.named_parameters() if one.grad is not None}

    plain = gradients()
    assert all("lora" in name for name in plain)
    assert all((value > 1e-7) == (".layers.0." in name) for name, value in plain.items() if "lora_B" in name)
    adapted.enable_input_require_grads()
    adapted.train()
    adapted.gradient_checkpointing_enable({"use_reentrant": False})
    assert gradients() == pytest.approx(plain, rel=1e-3, abs=1e-6)


def test_heads_below_all_trained_layers_are_an_error() -> None:
    model = tiny_model()
    add_taught_head(model)
    config = LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1], task_type="CAUSAL_LM")
    with pytest.raises(ConfigError, match=r"layer 1 .* below all trained layers"):
        _objective().loss(get_peft_model(model, config), _batch([_examples()[0]]), Step())


# The method.


def test_heads_are_fitted_on_undisguised_prompts_above_the_layers_left_alone() -> None:
    material, tokenizer = _material(), tiny_tokenizer()
    prompts = {tuple(encode_prompt(tokenizer, one.request.messages)): one for one in material.examples}
    model = LocalModel(tiny_model(), tokenizer, None, name="tiny")
    heads = fit_heads(model, prompts, material.policy, lowest=1)
    assert heads.settings.layer == 2
    assert heads.settings.rules == ("R4",)
    assert heads.settings.rows == {"harmful": 12, "harmless": 12}
    plain = [prompt for prompt, one in prompts.items() if one.request.operator is None]
    harm = heads.of_states(last_states(model, plain, [2]))[:, 0] > 0
    assert harm.tolist() == [one.term == "refusal" for one in prompts.values() if one.request.operator is None]


def test_training_lowers_the_heads_loss_on_every_row_and_stores_them(tmp_path: Path) -> None:
    """In the passes that a budget pays for, and no more than are allowed."""
    steps: list[Mapping[str, float]] = []
    progress = Listening(lambda step, total, values: steps.append(values))
    job = _job(tmp_path, learning_rate=3e-2)
    counts = train_headed(dataclasses.replace(job, progress=progress, budget=(10**6, 12)))
    assert (counts["rows"], counts["passes"], len(steps)) == (48, 12, 12 * 48 // CONFIG.batch_size)
    assert "rule heads: layer" in progress.said[0]
    # In the mean over passes: one batch is harder than another.
    seen = [one["loss_head_harm"] for one in steps if "loss_head_harm" in one]
    third = len(seen) // 3
    assert sum(seen[-third:]) < 0.995 * sum(seen[:third])
    heads = load_probe(tmp_path / HEADS_FOLDER)
    assert heads.settings.rules == ("R4",)
    assert read_settings(tmp_path).method == "scot_headed"
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_a_budget_for_less_than_a_pass_and_one_for_a_pass_and_a_half(tmp_path: Path) -> None:
    tokens = sum(row.tokens for row in method_rows(HEADED, _material()))
    for budget, passes in ((tokens // 2, 1.0), (3 * tokens // 2, 1.5)):
        job = dataclasses.replace(_job(tmp_path / str(budget)), budget=(budget, 4))
        assert train_headed(job)["passes"] == pytest.approx(passes, abs=0.01)


def test_stored_heads_are_used_again_by_the_same_training_alone(tmp_path: Path, monkeypatch: Any) -> None:
    fitted: list[str] = []
    real = fit_heads

    def counted(*args: Any) -> Any:
        fitted.append(args[-1])
        return real(*args)

    monkeypatch.setattr(headed, "fit_heads", counted)
    monkeypatch.setattr("forethought.training.run.train_rows", lambda job: {})
    train_headed(_job(tmp_path))
    train_headed(_job(tmp_path))
    assert len(fitted) == 1
    train_headed(_job(tmp_path, skip_layers=1))  # other layers may be chosen: other heads
    assert len(set(fitted)) == 2
    (tmp_path / HEADS_FOLDER / WEIGHTS).write_bytes(b"half")
    train_headed(_job(tmp_path, skip_layers=1))
    assert len(fitted) == 3


def test_the_objective_names_its_heads_in_short_so_that_no_other_training_is_gone_on_with(
    tmp_path: Path, monkeypatch: Any
) -> None:
    jobs: list[Job] = []

    def kept(job: Job) -> dict[str, float]:
        jobs.append(job)
        return {}

    monkeypatch.setattr("forethought.training.run.train_rows", kept)
    train_headed(_job(tmp_path / "a"))
    train_headed(
        dataclasses.replace(
            _job(tmp_path / "b"), material=Material(_examples()[:40], tiny_tokenizer(), default_policy())
        )
    )
    one, two = (repr(job.method.objective(job.config, 2)) for job in jobs)
    assert one != two
    assert len(one) < 400


def test_one_label_alone_is_an_error(tmp_path: Path) -> None:
    job = dataclasses.replace(_job(tmp_path), material=Material(_examples()[:12], tiny_tokenizer(), default_policy()))
    with pytest.raises(InputError, match="no harmful or no harmless"):
        train_headed(job)
