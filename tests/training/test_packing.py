"""Packed rows: the padded ones' losses and gradients, and no row that sees another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from forethought.errors import ConfigError
from forethought.training.config import TrainConfig
from forethought.training.fit import check_settings, train
from forethought.training.forward import add_taught_head, pack_attention
from forethought.training.methods.hidden_states import CircuitBreakerObjective
from forethought.training.objective import PairedObjective, paired_loss
from forethought.training.rows import TokenRow, collate
from tests.tiny import tiny_folder, tiny_model
from tests.training.test_fit import CONFIG, make_rows

_TINY = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[TokenRow]:
    """Three rows of unlike lengths, and both terms."""
    made = make_rows()
    return [made[0], made[20], made[11]]


def _model(packed: bool) -> Any:
    model = tiny_model()
    if packed:
        pack_attention(model)
    add_taught_head(model, packed=packed)
    return model


def _batch(rows: list[TokenRow]) -> tuple[dict[str, Any], torch.Tensor]:
    batch = collate([row.model_dump() for row in rows], pad_id=0)
    return batch, batch.pop("term")


def test_losses_and_gradients_are_the_padded_ones(rows: list[TokenRow]) -> None:
    batch, term = _batch(rows)
    assert len({row.length for row in rows}) == 3
    found = []
    for packed in (False, True):
        model = _model(packed)
        out = model(**batch, taught_only=True, output_hidden_states=True)
        loss, values = paired_loss(out.log_probs, out.taught, term, 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        found.append((out, values, gradients))
    (padded, expected, slopes), (packed_out, values, packed_slopes) = found
    assert values == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(packed_out.log_probs, padded.log_probs, rtol=1e-4, atol=1e-4)
    real = batch["attention_mask"].bool()
    for one, other in zip(packed_out.hidden_states, padded.hidden_states, strict=True):
        torch.testing.assert_close(one[real], other[real], rtol=1e-4, atol=1e-4)
    assert len(slopes) > 10
    for name, slope in slopes.items():
        torch.testing.assert_close(packed_slopes[name], slope, rtol=1e-3, atol=1e-5)


def test_no_row_sees_another(rows: list[TokenRow]) -> None:
    """Whatever stands in the rows before and behind, a row's log-probabilities stay."""
    model, (batch, _) = _model(packed=True), _batch(rows)
    changed = {name: value.clone() for name, value in batch.items()}
    for row in (0, 2):
        length = int(batch["attention_mask"][row].sum())
        changed["input_ids"][row, :length] = batch["input_ids"][row, :length].flip(0)
    with torch.no_grad():
        before, after = (model(**one, taught_only=True).log_probs for one in (batch, changed))
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[0], after[0])


def test_the_model_runs_once_over_real_tokens_alone(rows: list[TokenRow]) -> None:
    model, (batch, _) = _model(packed=True), _batch(rows)
    shapes: list[tuple[int, ...]] = []
    model.model.layers[0].register_forward_pre_hook(lambda module, given: shapes.append(tuple(given[0].shape)))
    with torch.no_grad():
        model(**batch, taught_only=True)
    assert shapes == [(1, sum(row.length for row in rows), 32)]


def test_a_packed_training_is_the_padded_one(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({**CONFIG.model_dump(), "dropout": 0.0, "epochs": 1})
    counts = []
    for packing in (False, True):
        changed = TrainConfig.model_validate({**config.model_dump(), "packing": packing})
        counts.append(train(str(tiny_folder()), make_rows(), changed, tmp_path / str(packing)))
    for name in ("loss_refusal", "loss_benign"):
        assert counts[1][name] == pytest.approx(counts[0][name], rel=2e-2)
    one, other = (load_file(tmp_path / str(packing) / "adapter_model.safetensors") for packing in (False, True))
    moved = torch.cat([value.flatten() for value in one.values()])
    difference = torch.cat([(value - other[name]).flatten() for name, value in one.items()])
    assert float(difference.norm() / moved.norm()) < 0.05


def test_objectives_that_look_at_single_states_are_not_packed() -> None:
    config = TrainConfig(packing=True)
    check_settings(config, PairedObjective(), None)
    with pytest.raises(ConfigError, match=r"packing: true with CircuitBreakerObjective.*Set packing: false"):
        check_settings(config, CircuitBreakerObjective((1,)), None)


@pytest.mark.parametrize("kind", ["linear_attention", "recurrent", "conv"])
def test_layers_that_carry_states_are_not_packed(kind: str) -> None:
    model = tiny_model()
    model.config.layer_types = ["full_attention", kind]
    with pytest.raises(ConfigError, match="can't keep rows apart in a LlamaForCausalLM"):
        pack_attention(model)


def test_state_space_models_are_not_packed() -> None:
    model = tiny_model()
    model.config.mamba_d_conv = 4
    with pytest.raises(ConfigError, match="can't keep rows apart"):
        pack_attention(model)


def test_capped_attention_is_not_packed(rows: list[TokenRow]) -> None:
    """Gemma 2 caps its attention's logits, which the kernel would leave out unsaid."""
    model = Gemma2ForCausalLM(Gemma2Config(**_TINY))
    pack_attention(model)
    add_taught_head(model, packed=True)
    ids = torch.randint(1, 61, (2, 6))
    with pytest.raises(ConfigError, match="caps, sinks or biases"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, taught_only=True)


def test_rows_longer_than_the_window_are_not_packed() -> None:
    """Within its window a row is attended to whole; beyond it the kernel would see too much."""
    model: Any = MistralForCausalLM(MistralConfig(**_TINY, sliding_window=4))
    pack_attention(model)
    add_taught_head(model, packed=True)
    ids = torch.randint(1, 61, (2, 6))
    given = {"attention_mask": torch.ones_like(ids), "labels": ids, "taught_only": True}
    with pytest.raises(ConfigError, match="attention that the kernel by rows has not"):
        model(input_ids=ids, **given)
    short = {name: value[:, :4] if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    assert torch.isfinite(model(input_ids=ids[:, :4], **short).log_probs).all()
