"""What a run takes: counted on `meta`, and the same as what really happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, LlamaConfig

from forethought.train.config import TrainConfig
from forethought.train.footprint import GIB, Devices, footprint
from forethought.train.trainer import lora
from tests.tiny import tiny_folder, tiny_model

CONFIG = TrainConfig(rank=4, alpha=8, batch_size=4)
CPU = Devices(weight_bytes=4)
LLAMA_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=False,
)  # fmt: skip


def _kept_bytes(model: Any, rows: int, tokens: int) -> int:
    """Bytes that autograd really keeps, weights left out."""
    decoder = model.get_base_model().get_decoder()
    weights = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    sizes: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = decoder.get_input_embeddings()(torch.ones(rows, tokens, dtype=torch.long)).requires_grad_()
        decoder(inputs_embeds=states, use_cache=False)
    return sum(sizes.values())


def test_what_is_kept_is_what_autograd_really_keeps() -> None:
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    model = get_peft_model(tiny_model(), lora(CONFIG, architecture.num_hidden_layers)).train()
    found = footprint(architecture, CONFIG, longest=50, taught_share=0.5, devices=CPU)
    assert found.activations_gib * GIB == pytest.approx(_kept_bytes(model, 4, 50), rel=0.15)


def test_parameters_are_those_of_the_model() -> None:
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    found = footprint(architecture, CONFIG, 20, 0.5, CPU)
    adapted = get_peft_model(tiny_model(), lora(CONFIG, architecture.num_hidden_layers))
    assert found.parameters == sum(p.numel() for p in tiny_model().parameters())
    assert found.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    full = footprint(architecture, CONFIG.model_copy(update={"method": "full"}), 20, 0.5, CPU)
    assert full.trained == full.parameters
    # Gradients and two moments, four bytes each.
    assert full.optimiser_gib * GIB == pytest.approx(12 * full.trained)
    assert full.weights_gib * GIB == pytest.approx(4 * full.parameters)


def test_arithmetic_by_hand() -> None:
    """A model of one matrix's worth: 2 N forward, 2 N back, 2 for each trained weight, and attention."""
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    found = footprint(architecture, CONFIG, 10, 0.5, CPU)
    multiplied = found.parameters - architecture.vocab_size * architecture.hidden_size
    attention = 2 * 10 * 32 * 2
    assert found.flops_a_token == pytest.approx(2 * multiplied + 2 * multiplied + 2 * found.trained + 3 * attention)


def test_a_model_of_eight_billion_without_its_weights() -> None:
    config = TrainConfig(rank=64, alpha=64, target_modules=("q_proj", "k_proj", "v_proj", "o_proj"))
    plain = footprint(LLAMA_8B, config, 1024, 0.3, Devices(n=2))
    assert plain.parameters == 8_030_261_248
    # Rank 64 on q and o (4096 by 4096) and on k and v (1024 by 4096), in 32 layers.
    assert plain.trained == 32 * 64 * (2 * (4096 + 4096) + 2 * (4096 + 1024))
    assert plain.weights_gib == pytest.approx((2 * 8_030_261_248 + 4 * plain.trained) / GIB)
    sharded = footprint(LLAMA_8B, config, 1024, 0.3, Devices(n=2, sharded=True))
    assert sharded.weights_gib == pytest.approx(plain.weights_gib / 2)
    assert sharded.activations_gib == plain.activations_gib
    again = footprint(LLAMA_8B, config.model_copy(update={"gradient_checkpointing": True}), 1024, 0.3, Devices(n=2))
    assert again.activations_gib < plain.activations_gib / 5
    assert again.flops_a_token > plain.flops_a_token
