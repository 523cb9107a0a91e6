"""What a training run takes, without running it: parameters, memory of a device, and arithmetic.

The model is built on torch's `meta` device, where tensors have shapes and no storage, and run once:
what autograd would keep for the backward pass is counted, not guessed (`kept.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from pydantic import Field
from transformers import AutoModelForCausalLM

from forethought.errors import ConfigError
from forethought.records import Record
from forethought.train.config import TrainConfig
from forethought.train.kept import kept_for_backward
from forethought.train.log_probs import CHUNK
from forethought.train.trainer import lora

GIB = 2.0**30
_FLOAT32 = 4
_ADAM = 2 * _FLOAT32
"""Bytes of the optimiser's state for each trained parameter: two moments."""
_NF4 = 0.52
"""Bytes of a weight in four bits, with the scales of its blocks (arXiv 2305.14314)."""


class Devices(Record):
    """What a run is spread over."""

    n: int = Field(default=1, ge=1)
    sharded: bool = False
    """True where weights, gradients and optimiser state are divided among devices (FSDP, ZeRO-3)."""
    weight_bytes: int = 2
    """Bytes of a frozen weight: 2 for bfloat16, in which matrices are then multiplied, 4 for float32. Weights that are
    trained are float32."""


class Footprint(Record):
    """What one run takes."""

    parameters: int
    trained: int
    """Parameters that are trained."""
    weights_gib: float
    """On each device, as the following."""
    optimiser_gib: float
    """The optimiser's moments."""
    gradients_gib: float
    """Of trained weights; they grow as activations are given back."""
    activations_gib: float
    """What is kept for the backward pass of the longest batch, and the largest layer's where it is computed again."""
    logits_gib: float
    """At the output head, of taught tokens alone, their gradient included."""
    gathered_gib: float = 0.0
    """Where weights are sharded: the unit that computes and the next, gathered meanwhile, are whole on each device."""
    flops_a_token: float
    """Floating-point operations of one step, a token."""

    @property
    def device_gib(self) -> float:
        """The peak: where the backward pass begins, or where it ends."""
        passing = max(self.activations_gib + self.logits_gib, self.gradients_gib)
        return self.weights_gib + self.optimiser_gib + self.gathered_gib + passing


def footprint(
    architecture: Any, config: TrainConfig, longest: int, taught_share: float, devices: Devices | None = None
) -> Footprint:
    """The footprint of training a model of a transformers config.

    `longest`: tokens of the longest row; a batch of such rows is the peak. `taught_share`: share of tokens that bear
    loss, 0 to 1. Memory of the framework itself and fragmentation come on top.
    Raises ConfigError where there is nothing to adapt, ModelError for a model that is no decoder.
    """
    devices = devices or Devices()
    mixed = devices.weight_bytes < _FLOAT32
    model, parameters = _on_meta(architecture, config, mixed)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = max(1, config.batch_size // devices.n)
    shards = devices.n if devices.sharded else 1
    kept = kept_for_backward(model, rows, longest, mixed, config.gradient_checkpointing, _skipped(config))
    sharded_too = (_weights(architecture, config, parameters, trained, devices), trained * _ADAM, trained * _FLOAT32)
    weights, moments, gradients = (size / shards / GIB for size in sharded_too)
    return Footprint(
        parameters=parameters,
        trained=trained,
        weights_gib=weights,
        optimiser_gib=moments,
        gradients_gib=gradients,
        activations_gib=(kept.states + kept.again) / GIB,
        logits_gib=_logits(architecture, config, rows * longest * taught_share) / GIB,
        gathered_gib=_gathered(architecture, parameters, devices) / GIB,
        flops_a_token=_flops(architecture, parameters, trained, config, longest, taught_share),
    )


def _on_meta(architecture: Any, config: TrainConfig, mixed: bool) -> tuple[Any, int]:
    """(the model as it is trained, without storage; its parameters without the adapter)."""
    full = config.method == "full"
    with torch.device("meta"):
        dtype = torch.bfloat16 if mixed and not full else torch.float32
        model: Any = AutoModelForCausalLM.from_config(architecture, dtype=dtype)
        parameters = sum(p.numel() for p in model.parameters())
        if not full:
            model = _adapted(model, architecture.num_hidden_layers, config)
    return model, parameters


def _adapted(model: Any, n_layers: int, config: TrainConfig) -> Any:
    """The model with its adapter, where there is something to adapt."""
    try:
        return get_peft_model(model, lora(config, n_layers))
    except ValueError as error:
        given = f"target_modules: {', '.join(config.target_modules)}"
        raise ConfigError(given, "this model has no such modules", "Name some of its linear modules") from error


def _skipped(config: TrainConfig) -> int:
    """Layers from the bottom that have no adapter; where all weights are trained, none is left out."""
    return 0 if config.method == "full" else config.skip_layers


def _weights(architecture: Any, config: TrainConfig, parameters: int, trained: int, devices: Devices) -> float:
    """Bytes of all weights before they are divided among devices."""
    # autocast keeps a bfloat16 copy beside trained weights that are multiplied; sharded ones are cast as they are
    # gathered.
    copied = devices.weight_bytes if devices.weight_bytes < _FLOAT32 and not devices.sharded else 0
    embedded, body = _parts(architecture, parameters)
    one = int(architecture.vocab_size * architecture.hidden_size)
    if config.method == "full":
        # The head is multiplied, an embedding of its own is looked up.
        return trained * _FLOAT32 + copied * (body + one)
    frozen = devices.weight_bytes * embedded + (devices.weight_bytes if config.quantize is None else _NF4) * body
    return frozen + trained * (_FLOAT32 + copied)


def _logits(architecture: Any, config: TrainConfig, taught: float) -> float:
    """Bytes at the head: chunk by chunk where it is frozen (`log_probs.ChunkedLogProbs`), else in one piece."""
    vocabulary = int(architecture.vocab_size)
    if config.method == "full":
        # Log-probabilities and two gradients, float32, when the backward pass begins.
        return taught * vocabulary * 3 * _FLOAT32
    # Logits, their exponentials, and the slopes in the weights' type.
    return min(taught, CHUNK) * vocabulary * (2 * _FLOAT32 + 2)


def _parts(architecture: Any, parameters: int) -> tuple[int, int]:
    """(parameters of embedding and head, of all else)."""
    one = architecture.vocab_size * architecture.hidden_size
    embedded = one if architecture.tie_word_embeddings else 2 * one
    return embedded, parameters - embedded


def _gathered(architecture: Any, parameters: int, devices: Devices) -> float:
    """Bytes of two units: layers, or an embedding where that is larger, each a unit of its own."""
    if devices.n == 1 or not devices.sharded:
        return 0.0
    one = architecture.vocab_size * architecture.hidden_size
    _, body = _parts(architecture, parameters)
    return 2.0 * devices.weight_bytes * float(max(one, body / architecture.num_hidden_layers))


def _flops(
    architecture: Any, parameters: int, trained: int, config: TrainConfig, tokens: int, taught_share: float
) -> float:
    """Multiply-adds count two. Forward 2 a weight; backward 2 for the states and 2 for each trained weight.

    An embedding is looked up, not multiplied; the head sees taught tokens alone; attention adds 4 a token, width and
    layer, half of it masked away. Layers below the lowest adapter have no backward pass and are not computed again.
    """
    full = config.method == "full"
    _, body = _parts(architecture, parameters)
    layers = architecture.num_hidden_layers
    attention = 2.0 * tokens * architecture.hidden_size * layers
    forward = 2.0 * body + attention
    adapter = 0.0 if full else 2.0 * trained
    upper = 1.0 - _skipped(config) / layers
    backward = (2.0 * body + 2.0 * attention) * upper + adapter + (2.0 * body if full else adapter)
    head = 2.0 * architecture.vocab_size * architecture.hidden_size * taught_share * (3 if full else 2)
    again = forward * upper + adapter if config.gradient_checkpointing else 0.0
    return float(forward + adapter + backward + head + again)
