"""What a run takes: counted on `meta`, and the same as what really happens."""

from __future__ import annotations

from typing import Any

import pytest
from peft import get_peft_model
from transformers import AutoConfig, LlamaConfig

from forethought.errors import ConfigError
from forethought.research.footprint import GIB, Devices, Footprint, footprint
from forethought.training.config import TrainConfig
from forethought.training.trainer import lora
from tests.tiny import tiny_folder, tiny_model

CONFIG = TrainConfig(rank=4, alpha=8, batch_size=4)
CPU = Devices(weight_bytes=4)
LLAMA_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=False,
)  # fmt: skip


def test_parameters_are_those_of_the_model() -> None:
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    found = footprint(architecture, CONFIG, 20, 0.5, CPU)
    adapted = get_peft_model(tiny_model(), lora(CONFIG, architecture.num_hidden_layers))
    assert found.parameters == sum(p.numel() for p in tiny_model().parameters())
    assert found.trained == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    full = footprint(architecture, CONFIG.model_copy(update={"method": "full"}), 20, 0.5, CPU)
    assert full.trained == full.parameters
    # Two moments and a gradient, four bytes each.
    assert full.optimiser_gib * GIB == pytest.approx(8 * full.trained)
    assert full.gradients_gib * GIB == pytest.approx(4 * full.trained)
    assert full.weights_gib * GIB == pytest.approx(4 * full.parameters)


@pytest.mark.parametrize(
    ("changed", "forward", "states", "weights", "attention", "head"),
    [
        # (times the matrices of all layers: forward, back to states, back to weights; attention; head)
        ({}, 2, 2, 0, 3, 4),
        ({"gradient_checkpointing": True}, 4, 2, 0, 4, 4),
        ({"skip_layers": 1}, 2, 1, 0, 2, 4),
        ({"skip_layers": 1, "gradient_checkpointing": True}, 3, 1, 0, 2.5, 4),
        ({"method": "full"}, 2, 2, 2, 3, 6),
        ({"method": "full", "skip_layers": 1}, 2, 2, 2, 3, 6),
    ],
)
def test_arithmetic_by_hand(
    changed: dict[str, Any], forward: int, states: int, weights: int, attention: float, head: int
) -> None:
    """A quarter of tokens is taught; an adapter is multiplied forward, back to states, and to itself."""
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    found = footprint(architecture, CONFIG.model_copy(update=changed), 10, 0.25, CPU)
    vocabulary = architecture.vocab_size * 32
    body = found.parameters - 2 * vocabulary
    adapter = 0 if "method" in changed else found.trained
    passes = 8 if changed.get("gradient_checkpointing") else 6
    expected = (forward + states + weights) * body + passes * adapter
    # Two layers; scores and their sum over values, ten tokens, half of them masked away.
    expected += attention * (2 * 10 * 32 * 2) + head * vocabulary * 0.25
    assert found.flops_a_token == pytest.approx(expected)


def test_copies_in_bfloat16_by_hand() -> None:
    """Trained matrices are kept in float32 and, multiplied, in bfloat16; an embedding is looked up."""
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    half = Devices(weight_bytes=2)
    adapted = footprint(architecture, CONFIG, 20, 0.5, half)
    assert adapted.weights_gib * GIB == pytest.approx(2 * adapted.parameters + 6 * adapted.trained)
    full = footprint(architecture, CONFIG.model_copy(update={"method": "full"}), 20, 0.5, half)
    looked_up = architecture.vocab_size * architecture.hidden_size
    assert full.weights_gib * GIB == pytest.approx(4 * full.parameters + 2 * (full.parameters - looked_up))
    sharded = footprint(architecture, CONFIG, 20, 0.5, Devices(n=2, sharded=True))
    assert sharded.weights_gib * GIB == pytest.approx((2 * adapted.parameters + 4 * adapted.trained) / 2)
    four = footprint(architecture, CONFIG.model_copy(update={"quantize": "4bit"}), 20, 0.5, half)
    body = four.parameters - 2 * looked_up
    assert (adapted.weights_gib - four.weights_gib) * GIB == pytest.approx((2 - 0.52) * body)


def test_the_head_by_hand() -> None:
    """An adapter's head makes chunks of 256 tokens; one that is trained makes all taught tokens at once."""
    vocabulary = LLAMA_8B.vocab_size
    config = CONFIG.model_copy(update={"gradient_checkpointing": True})
    many = footprint(LLAMA_8B, config, 1024, 0.5)
    assert many.logits_gib * GIB == pytest.approx(256 * vocabulary * 10)
    few = footprint(LLAMA_8B, config, 64, 0.25)
    assert few.logits_gib * GIB == pytest.approx(4 * 16 * vocabulary * 10)
    full = footprint(LLAMA_8B, config.model_copy(update={"method": "full"}), 1024, 0.5)
    assert full.logits_gib * GIB == pytest.approx(4 * 512 * vocabulary * 12)


def test_the_peak_is_where_the_backward_pass_begins_or_ends() -> None:
    parts = {"weights_gib": 5.0, "optimiser_gib": 4.0, "gathered_gib": 1.0, "activations_gib": 2.0, "logits_gib": 0.5}
    counts = {"parameters": 1, "trained": 1, "flops_a_token": 1.0}
    assert Footprint.model_validate(parts | counts | {"gradients_gib": 2.0}).device_gib == pytest.approx(12.5)
    assert Footprint.model_validate(parts | counts | {"gradients_gib": 3.0}).device_gib == pytest.approx(13.0)


def test_nothing_to_adapt_is_an_error() -> None:
    architecture = AutoConfig.from_pretrained(str(tiny_folder()))
    with pytest.raises(ConfigError, match=r"skip_layers: 2: leaves none of the model's 2 layers.*fewer than 2"):
        footprint(architecture, CONFIG.model_copy(update={"skip_layers": 2}), 20, 0.5)
    with pytest.raises(ConfigError, match=r"target_modules: nothing: this model has no such modules\. Name"):
        footprint(architecture, CONFIG.model_copy(update={"target_modules": ("nothing",)}), 20, 0.5)


def test_a_model_of_eight_billion_without_its_weights() -> None:
    config = TrainConfig(rank=64, alpha=64, target_modules=("q_proj", "k_proj", "v_proj", "o_proj"))
    plain = footprint(LLAMA_8B, config, 1024, 0.3, Devices(n=2))
    assert plain.parameters == 8_030_261_248
    # Rank 64 on q and o (4096 by 4096) and on k and v (1024 by 4096), in 32 layers.
    assert plain.trained == 32 * 64 * (2 * (4096 + 4096) + 2 * (4096 + 1024))
    assert plain.weights_gib == pytest.approx((2 * 8_030_261_248 + 6 * plain.trained) / GIB)
    sharded = footprint(LLAMA_8B, config, 1024, 0.3, Devices(n=2, sharded=True))
    assert sharded.weights_gib == pytest.approx((2 * 8_030_261_248 + 4 * plain.trained) / 2 / GIB)
    assert sharded.activations_gib == plain.activations_gib
    again = footprint(LLAMA_8B, config.model_copy(update={"gradient_checkpointing": True}), 1024, 0.3, Devices(n=2))
    assert again.activations_gib < plain.activations_gib / 5
    assert again.flops_a_token > plain.flops_a_token
