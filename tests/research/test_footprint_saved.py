"""What is counted without storage is, to the byte, what autograd keeps of the tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, GPT2Config, LlamaForCausalLM

from forethought.errors import ModelError
from forethought.research.footprint import Devices, Saved, footprint, saved_for_backward
from forethought.training.config import TrainConfig
from forethought.training.trainer import lora
from tests.tiny import tiny_folder, tiny_model

ROWS, TOKENS, WIDTH, HIDDEN = 4, 48, 4, 32
STATE = ROWS * TOKENS * HIDDEN
"""Numbers of one hidden state of the batch."""
LORA = TrainConfig(rank=4, alpha=8, batch_size=ROWS)
FULL = LORA.model_copy(update={"method": "full"})


def _model(config: TrainConfig, mixed: bool) -> Any:
    """As `fit.train` has it when its first step begins."""
    model = tiny_model()
    if config.method == "lora":
        base = model.to(torch.bfloat16) if mixed else model
        model = get_peft_model(base, lora(config, base.config.num_hidden_layers))
    if config.gradient_checkpointing:
        decoder = _decoder(model)
        decoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def _decoder(model: Any) -> Any:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()


def _really_kept(config: TrainConfig, mixed: bool = False) -> int:
    """Bytes that autograd keeps of one padded batch, weights left out, casts of weights among them."""
    decoder = _decoder(_model(config, mixed))
    weights = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    sizes: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    mask = torch.ones(ROWS, TOKENS, dtype=torch.long)
    mask[0, -5:] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        decoder(torch.ones(ROWS, TOKENS, dtype=torch.long), attention_mask=mask, use_cache=False)
    return sum(sizes.values())


def _counted(config: TrainConfig, mixed: bool = False) -> Saved:
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(architecture)
        if config.method == "lora":
            base = model.to(torch.bfloat16) if mixed else model
            model = get_peft_model(base, lora(config, architecture.num_hidden_layers))
    skipped = config.skip_layers
    return saved_for_backward(model, ROWS, TOKENS, mixed, config.gradient_checkpointing, skipped)


@pytest.mark.parametrize(
    "config",
    [
        LORA,
        LORA.model_copy(update={"target_modules": ("q_proj", "v_proj")}),
        LORA.model_copy(update={"dropout": 0.1}),
        LORA.model_copy(update={"skip_layers": 1}),
        LORA.model_copy(update={"dora": True}),
        FULL,
    ],
    ids=["lora", "attention", "dropout", "upper", "dora", "full"],
)
def test_to_the_byte_what_autograd_keeps(config: TrainConfig) -> None:
    assert _counted(config).states == _really_kept(config)


@pytest.mark.parametrize("config", [LORA, FULL], ids=["lora", "full"])
def test_in_mixed_precision_casts_of_trained_weights_are_left_out(config: TrainConfig) -> None:
    """They count as weights: two bytes for each number of a trained matrix."""
    wide = _model(config, mixed=True)
    matrices = [m.weight for m in _decoder(wide).modules() if isinstance(m, torch.nn.Linear)]
    cast = 2 * sum(weight.numel() for weight in matrices if weight.requires_grad)
    assert cast > 0
    assert _counted(config, mixed=True).states == _really_kept(config, mixed=True) - cast


@pytest.mark.parametrize("config", [LORA, FULL], ids=["lora", "full"])
def test_recomputed_layers_keep_their_inputs_alone(config: TrainConfig) -> None:
    again = config.model_copy(update={"gradient_checkpointing": True})
    found, plain = _counted(again), _counted(config)
    really = _really_kept(again)
    # Two inputs, the last norm's and little else; rotary tables, of all layers together, are counted once more.
    assert 2 * STATE * WIDTH < really < 6 * STATE * WIDTH
    rotary = 2 * TOKENS * HIDDEN // 4 * WIDTH
    assert found.states == pytest.approx(really + rotary)
    # What one layer keeps comes on top while it is computed again.
    assert found.again == pytest.approx(plain.states / 2, abs=2 * STATE * WIDTH)


def test_layers_below_the_adapter_keep_no_input() -> None:
    def states(skipped: int) -> float:
        return _counted(LORA.model_copy(update={"gradient_checkpointing": True, "skip_layers": skipped})).states

    rotary = 2 * TOKENS * HIDDEN // 4 * WIDTH
    assert states(0) - states(1) == pytest.approx(STATE * WIDTH, abs=rotary)


def test_the_batch_decides() -> None:
    """Twice the rows keep twice as much, but for tables that all rows share."""
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))

    def kept(rows: int) -> float:
        config = LORA.model_copy(update={"batch_size": rows})
        return footprint(architecture, config, TOKENS, 0.5, Devices(weight_bytes=4)).activations_gib

    assert kept(8) == pytest.approx(2 * kept(4), rel=0.01)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_another_family_names_its_layers_otherwise() -> None:
    config = LORA.model_copy(update={"target_modules": ("c_attn",)})
    shape = GPT2Config(n_layer=3, n_embd=32, n_head=2)
    two = GPT2Config(n_layer=2, n_embd=32, n_head=2)
    assert footprint(shape, config, 16, 0.5).activations_gib > footprint(two, config, 16, 0.5).activations_gib > 0


def test_no_list_of_layers_is_an_error() -> None:
    model = tiny_model()
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(ModelError, match=r"LlamaModel: has no list of layers.*decoder-only"):
        saved_for_backward(model, ROWS, TOKENS, mixed=False, checkpointed=False)
