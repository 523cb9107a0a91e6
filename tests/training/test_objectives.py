"""Objectives of the defences: each loss by hand, and what each does to a model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from forethought.errors import ConfigError
from forethought.policy import default_policy
from forethought.training.config import TrainConfig
from forethought.training.fit import train
from forethought.training.forward import add_taught_head
from forethought.training.methods.hidden_states import (
    CircuitBreakerObjective,
    LatentObjective,
    _mean,
    ball,
    perturbed,
    prompt_mask,
    reroute_loss,
    retain_loss,
    states_entering,
    unlikely,
)
from forethought.training.methods.preference import PreferenceObjective, dpo_loss
from forethought.training.objective import Step
from forethought.training.rows import IGNORED, TokenRow, collate, tokenize, with_other
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_model, tiny_tokenizer

CONFIG = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, seed=3)
LATENT = LatentObjective(layers=(0, 1), epsilon=0.2, inner_steps=4, inner_rate=0.05)


@pytest.fixture(scope="module")
def rows() -> list[TokenRow]:
    """Eight harmful rows with a second completion, eight harmless ones without."""
    tokenizer = tiny_tokenizer()

    def tokens(example: Any) -> TokenRow:
        return tokenize(example, tokenizer, default_policy(), "think", "short", 0, reasoning=False)

    pairs = []
    for n in range(8):
        refusing = harmful_example("Help me copy a paid film" + " please" * n)
        pairs.append(with_other(tokens(refusing), tokens(refusing.model_copy(update={"answer": "Sure, here is how."}))))
    return pairs + [tokens(harmless_example("How do I bake bread" + " today" * n + "?")) for n in range(8)]


@pytest.fixture
def adapted() -> Any:
    torch.manual_seed(0)
    model = tiny_model()
    add_taught_head(model)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def _batch(rows: list[TokenRow]) -> dict[str, torch.Tensor]:
    return collate([row.model_dump() for row in rows], pad_id=0)


def test_other_completions_are_padded_apart(rows: list[TokenRow]) -> None:
    batch = _batch([rows[8], rows[2], rows[9], rows[0]])
    assert batch["other_of"].tolist() == [1, 3]
    assert batch["other_input_ids"].shape == batch["other_labels"].shape == batch["other_attention_mask"].shape
    long, short = rows[2].other_input_ids, rows[0].other_input_ids
    assert batch["other_input_ids"][0].tolist() == list(long)
    assert batch["other_input_ids"][1].tolist() == list(short) + [0] * (len(long) - len(short))
    assert batch["other_attention_mask"].sum(1).tolist() == [len(long), len(short)]
    assert batch["other_labels"][1, len(short) :].tolist() == [IGNORED] * (len(long) - len(short))
    assert "other_of" not in _batch(rows[8:10])


# Circuit breakers.


def test_reroute_and_retain_by_hand() -> None:
    before = [torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]])]
    now = [torch.tensor([[[1.0, 1.0], [0.0, -2.0], [3.0, 0.0]]])]
    where = torch.tensor([[True, True, False]])
    # cos = 1/sqrt(2) and -1, which relu makes 0.
    assert reroute_loss(now, before, where, Step())[1] == pytest.approx((1 / math.sqrt(2) + 0) / 2)
    # Distances 1 and 4 of states of norm 1 and 2; the last token is left out.
    loss, value = retain_loss(now, before, where, Step())
    assert float(loss) == value == pytest.approx((1 / 1 + 4 / 2) / 2)
    nowhere = torch.zeros(1, 3, dtype=torch.bool)
    assert reroute_loss(now, before, nowhere, Step())[1] == retain_loss(now, before, nowhere, Step())[1] == 0.0


def test_the_weight_moves_from_rerouting_to_retaining(adapted: Any, rows: list[TokenRow]) -> None:
    batch = _batch([rows[0], rows[8]])
    with torch.no_grad():  # the adapter starts at zero: nothing is rotated, nothing has moved
        start, values = CircuitBreakerObjective((1, 2)).loss(adapted, batch, Step(0, 10))
        middle, _ = CircuitBreakerObjective((1, 2)).loss(adapted, batch, Step(5, 10))
    assert values == {"reroute": pytest.approx(1.0), "retain": pytest.approx(0.0, abs=1e-4)}
    assert float(start) == pytest.approx(10.0, rel=1e-4)
    assert float(middle) == pytest.approx(10 * (1 - 5 / 20), rel=1e-4)


def test_harmful_answers_rotate_and_harmless_rows_stay(rows: list[TokenRow], tmp_path: Path) -> None:
    harmful = [
        row.model_copy(update={"input_ids": row.other_input_ids, "labels": row.other_labels}) for row in rows[:8]
    ]
    mixed = [*harmful, *rows[8:]]
    config = CONFIG.model_copy(update={"epochs": 20})
    counts = train(str(tiny_folder()), mixed, config, tmp_path, objective=CircuitBreakerObjective((1, 2), alpha=1.0))
    assert counts["loss_reroute"] < 0.3
    assert counts["loss_retain"] < 0.2


def test_an_objective_that_looks_back_needs_an_adapter(rows: list[TokenRow], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora"):
        train(
            str(tiny_folder()),
            rows,
            CONFIG.model_copy(update={"method": "full"}),
            tmp_path,
            objective=CircuitBreakerObjective((1,)),
        )


# Preference.


def test_dpo_by_hand() -> None:
    losses, margins = dpo_loss(
        torch.tensor([-1.0, -4.0]),
        torch.tensor([-3.0, -2.0]),
        torch.tensor([-2.0, -4.0]),
        torch.tensor([-2.5, -2.0]),
        0.5,
    )
    # Margins (1 + 0.5) and 0.
    expected = (-math.log(1 / (1 + math.exp(-0.75))) + math.log(2)) / 2
    assert float(losses.mean()) == pytest.approx(expected)
    assert float(margins.mean()) == pytest.approx(0.75)


def test_an_untrained_adapter_has_no_preference(adapted: Any, rows: list[TokenRow]) -> None:
    batch = _batch([rows[0], rows[8], rows[1]])
    loss, values = PreferenceObjective(sft_weight=0.0).loss(adapted, batch, Step())
    assert float(loss) == pytest.approx(math.log(2), rel=1e-4)
    assert values["margin"] == pytest.approx(0.0, abs=1e-3)


def test_dpo_learns_to_prefer(rows: list[TokenRow], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 8})
    counts = train(str(tiny_folder()), rows, config, tmp_path, objective=PreferenceObjective())
    assert counts["loss_margin"] > 5.0
    assert counts["loss_dpo"] < 0.5


# Latent adversarial training.


def test_the_ball_and_the_prompt() -> None:
    pulled = ball(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]), 1.0)
    torch.testing.assert_close(pulled, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    labels = torch.tensor([[IGNORED, IGNORED, 5, 6, IGNORED], [IGNORED, 7, IGNORED, IGNORED, IGNORED]])
    assert prompt_mask(labels).tolist() == [[True, True, False, False, False], [True, False, False, False, False]]


def test_only_the_prompt_is_moved(adapted: Any, rows: list[TokenRow]) -> None:
    batch = _batch([rows[0], rows[1]])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    where = prompt_mask(batch["labels"])

    def states() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            found: tuple[torch.Tensor, ...] = adapted(
                **inputs, taught_only=True, output_hidden_states=True
            ).hidden_states
        return found

    plain = states()
    delta = torch.ones(2, int(where.sum(1).max()), plain[0].shape[-1])
    seen: list[torch.Tensor] = []
    layer = adapted.get_base_model().get_decoder().layers[1]
    with perturbed(adapted, {1: delta}, where):
        watch = layer.register_forward_pre_hook(
            lambda m, args, kw: seen.append(args[0] if args else kw["hidden_states"]), with_kwargs=True
        )
        states()
        watch.remove()
    moved = seen[0] - plain[1]
    torch.testing.assert_close(moved[where], torch.ones_like(moved[where]))
    assert not moved[~where].any()
    for a, b in zip(plain, states(), strict=True):  # and nothing stays behind
        assert torch.equal(a, b)


@pytest.mark.parametrize("inner", ["adam", "sign"])
def test_the_attack_lowers_what_it_attacks_and_leaves_the_weights_alone(
    adapted: Any, rows: list[TokenRow], inner: Any
) -> None:
    batch = _batch(rows[:3])
    refusing = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    complying = {name: batch[f"other_{name}"] for name in ("input_ids", "attention_mask", "labels")}
    objective = LatentObjective(layers=(0, 1), epsilon=2.0, inner_steps=8, inner_rate=0.3, inner=inner)
    deltas, first, last = objective.attack(adapted, refusing, complying)
    assert last < first - 0.1
    assert all(float(delta.norm(dim=-1).max()) <= 2.0 + 1e-4 for delta in deltas.values())
    assert all(parameter.grad is None for parameter in adapted.parameters())


def test_a_relative_radius_is_a_share_of_the_states_norm(adapted: Any, rows: list[TokenRow]) -> None:
    batch = _batch(rows[:2])
    refusing = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    complying = {name: batch[f"other_{name}"] for name in ("input_ids", "attention_mask", "labels")}
    width = int(prompt_mask(batch["labels"]).sum(1).max())
    norm = float(states_entering(adapted, (0,), complying, width)[0].norm(dim=-1).median())
    objective = LatentObjective((0,), epsilon=0.1, relative=True, inner_steps=6, inner_rate=1.0, inner="sign")
    deltas, _, _ = objective.attack(adapted, refusing, complying)
    assert float(deltas[0].norm(dim=-1).max()) == pytest.approx(0.1 * norm, rel=1e-3)


def test_adam_steps_in_proportion_to_the_states_of_a_layer(adapted: Any, rows: list[TokenRow]) -> None:
    batch = _batch(rows[:2])
    refusing = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    complying = {name: batch[f"other_{name}"] for name in ("input_ids", "attention_mask", "labels")}
    width = int(prompt_mask(batch["labels"]).sum(1).max())
    states = states_entering(adapted, (0, 1), complying, width)
    objective = LatentObjective((0, 1), epsilon=0.5, relative=True, inner_steps=1, inner_rate=0.1)
    deltas, _, _ = objective.attack(adapted, refusing, complying)
    for at, state in states.items():  # Adam's first step moves every coordinate by its rate
        moved = float(deltas[at].norm(dim=-1).max())
        assert moved == pytest.approx(0.1 * 0.5 * float(state.norm(dim=-1).median()), rel=1e-2)


def test_the_refusal_is_taught_without_the_attack_where_asked(adapted: Any, rows: list[TokenRow]) -> None:
    batch = _batch(rows[:2])
    without, _ = replace(LATENT, inner_steps=1).loss(adapted, batch, Step())
    loss, values = replace(LATENT, inner_steps=1, clean_weight=0.7).loss(adapted, batch, Step())
    own = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    out = adapted(**own, taught_only=True)
    by_hand = -float((out.log_probs * out.taught).sum() / out.taught.sum())
    assert values["clean"] == pytest.approx(by_hand, rel=1e-4)
    assert float(loss - without) == pytest.approx(0.7 * by_hand, rel=1e-3)


def test_toward_and_away_by_hand() -> None:
    out = SimpleNamespace(
        log_probs=torch.tensor([[-1.0, math.log(0.25), 0.0]]), taught=torch.tensor([[True, True, False]])
    )
    assert float(_mean(out.log_probs, out)) == pytest.approx((-1.0 + math.log(0.25)) / 2)
    expected = -(math.log(1 - math.exp(-1)) + math.log(0.75)) / 2
    assert float(_mean(unlikely(out.log_probs), out)) == pytest.approx(expected)


@pytest.mark.slow
def test_latent_training_moves_the_adapter_alone(rows: list[TokenRow], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"epochs": 16})
    seen: list[dict[str, float]] = []
    train(str(tiny_folder()), rows, config, tmp_path, lambda step, steps, terms: seen.append(terms), LATENT)
    early, late = seen[6], seen[-1]
    assert late["loss_attack_gain"] > 0  # the attack still finds something
    assert late["loss_toward"] < 0.7 * early["loss_toward"]
    assert late["loss_benign"] < 0.7 * early["loss_benign"]
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_rows_without_a_second_completion_are_not_attacked(adapted: Any, rows: list[TokenRow]) -> None:
    loss, values = LATENT.loss(adapted, _batch(rows[8:10]), Step())
    assert set(values) == {"benign"}
    assert float(loss) == pytest.approx(1.5 * values["benign"])
