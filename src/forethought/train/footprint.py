"""What a training run takes, without running it: parameters, memory of a device, and arithmetic.

The model is built on torch's `meta` device, where tensors have shapes and no storage, and is run
there once: what autograd would keep for the backward pass is counted, not guessed, for any
architecture that transformers knows and at any size.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from pydantic import Field
from transformers import AutoModelForCausalLM

from forethought.records import Record
from forethought.train.config import TrainConfig
from forethought.train.trainer import lora

GIB = 2.0**30
_FLOAT32 = 4
_ADAM = 2 * _FLOAT32
"""Bytes of the optimiser's state for each trained parameter: two moments."""


class Devices(Record):
    """What a run is spread over."""

    n: int = Field(default=1, ge=1)
    sharded: bool = False
    """True where weights, gradients and optimiser state are divided among devices (FSDP, ZeRO-3)."""
    weight_bytes: int = 2
    """Bytes of a frozen weight: 2 for bfloat16. Weights that are all trained are float32 besides."""


class Footprint(Record):
    """What one run takes."""

    parameters: int
    trained: int
    """Parameters that are trained."""
    weights_gib: float
    """On each device, as the following."""
    optimiser_gib: float
    """Trained weights' gradients and moments, and their float32 copy where the weights are kept in less."""
    activations_gib: float
    """What is kept for the backward pass of the longest batch, and the largest layer's where it is computed again."""
    logits_gib: float
    """Of taught tokens alone, their gradient included."""
    gathered_gib: float = 0.0
    """Where weights are sharded: the unit that computes and the next, gathered meanwhile, are whole on each device."""
    flops_a_token: float
    """Floating-point operations of one step, a token."""

    @property
    def device_gib(self) -> float:
        """All of it."""
        return self.weights_gib + self.optimiser_gib + self.activations_gib + self.logits_gib + self.gathered_gib


def footprint(
    architecture: Any, config: TrainConfig, longest: int, taught_share: float, devices: Devices | None = None
) -> Footprint:
    """The footprint of training a model of a transformers config.

    `longest`: tokens of the longest row; a batch of such rows is the peak. `taught_share`: share of tokens that bear
    loss, 0 to 1. Memory of the framework itself and fragmentation come on top.
    """
    devices = devices or Devices()
    full = config.method == "full"
    dtype = torch.float32 if devices.weight_bytes == _FLOAT32 else torch.bfloat16
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(architecture, dtype=dtype)
        parameters = sum(p.numel() for p in model.parameters())
        if not full:
            model = get_peft_model(model, lora(config, architecture.num_hidden_layers))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = max(1, config.batch_size // devices.n)
    shards = devices.n if devices.sharded else 1
    kept, largest = _kept_for_backward(model, architecture, rows, longest, config.gradient_checkpointing)
    logits = rows * longest * taught_share * architecture.vocab_size * (devices.weight_bytes + 2 * _FLOAT32)
    own_copy = _FLOAT32 if full and devices.weight_bytes < _FLOAT32 else 0
    frozen = 0 if full else parameters
    weights = frozen * devices.weight_bytes + trained * (devices.weight_bytes if full else _FLOAT32)
    return Footprint(
        parameters=parameters,
        trained=trained,
        weights_gib=weights / shards / GIB,
        optimiser_gib=trained * (_FLOAT32 + _ADAM + own_copy) / shards / GIB,
        activations_gib=(kept + largest) / GIB,
        logits_gib=logits / GIB,
        gathered_gib=_gathered(architecture, parameters, devices) / GIB,
        flops_a_token=_flops(architecture, parameters, trained, config, longest),
    )


def _gathered(architecture: Any, parameters: int, devices: Devices) -> float:
    """Bytes of two units: layers, or an embedding where that is larger, each a unit of its own."""
    if devices.n == 1 or not devices.sharded:
        return 0.0
    embedded = architecture.vocab_size * architecture.hidden_size
    layers = parameters - embedded * (1 if architecture.tie_word_embeddings else 2)
    return 2.0 * devices.weight_bytes * float(max(embedded, layers / architecture.num_hidden_layers))


def _kept_for_backward(
    model: Any, architecture: Any, rows: int, tokens: int, checkpointed: bool
) -> tuple[float, float]:
    """(bytes kept for the backward pass, bytes of one layer that is computed again)."""
    decoder = (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()
    decoder.train()
    kept = _saved_bytes(decoder, rows, tokens)
    if not checkpointed:
        return kept, 0.0
    layers = architecture.num_hidden_layers
    width = 2 if next(decoder.parameters()).dtype is torch.bfloat16 else _FLOAT32
    return float(layers * rows * tokens * architecture.hidden_size * width), kept / layers


def _saved_bytes(decoder: Any, rows: int, tokens: int) -> float:
    """Bytes of all tensors that autograd keeps, each storage once, weights left out."""
    weights = {parameter.untyped_storage()._cdata for parameter in decoder.parameters()}
    sizes: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # else a freed storage's address could be another's

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        # On `meta` attention keeps its scores, tokens by tokens; the kernels of real devices don't.
        if storage._cdata not in weights and tensor.shape[-2:] != (tokens, tokens):
            sizes[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = decoder.get_input_embeddings()(ids).requires_grad_()
        # A mask of its own: with none, transformers looks for packed rows, which needs values.
        mask = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool, device="meta")
        decoder(inputs_embeds=states, attention_mask=mask, use_cache=False)
    return float(sum(sizes.values()))


def _flops(architecture: Any, parameters: int, trained: int, config: TrainConfig, tokens: int) -> float:
    """Multiply-adds count two. Forward 2 a weight; backward 2 for the states and 2 for each trained weight.

    An embedding is looked up, not multiplied; attention adds 4 a token, width and layer, half of it masked away.
    """
    embedded = architecture.vocab_size * architecture.hidden_size
    multiplied = parameters - (0 if architecture.tie_word_embeddings else embedded)
    attention = 2.0 * tokens * architecture.hidden_size * architecture.num_hidden_layers
    forward = 2.0 * multiplied + attention
    backward = 2.0 * multiplied + 2.0 * attention + 2.0 * trained
    return float(forward + backward + (forward if config.gradient_checkpointing else 0.0))
