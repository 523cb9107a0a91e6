"""What a training run takes, without running it: parameters, memory, arithmetic; and the device that it may run on.

The model is built on torch's `meta` device, where tensors have shapes and no storage, and run once as fake tensors,
under the number types that training uses: what autograd would keep for the backward pass is counted, not guessed. It
has the shapes and types of the real thing, on a processor's attention kernel, for any dense decoder that transformers
knows, at any size.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from peft import get_peft_model
from pydantic import Field
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from forethought.errors import ConfigError, ModelError
from forethought.models.weights import batches_in_bfloat16
from forethought.records import Record
from forethought.research import PlanSettings
from forethought.training.config import TrainConfig
from forethought.training.forward import CHUNK
from forethought.training.trainer import lora
from forethought.yamlfile import shipped_yaml

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
    mixed, full = devices.weight_bytes < _FLOAT32, config.method == "full"
    model, parameters = _on_meta(architecture, config, mixed)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    embedding = int(architecture.vocab_size * architecture.hidden_size)
    embedded = embedding if architecture.tie_word_embeddings else 2 * embedding  # the head may be the embedding
    body = parameters - embedded
    # Layers from the bottom that have no adapter; where all weights are trained, none is left out.
    skipped = 0 if full else config.skip_layers
    rows = max(1, config.batch_size // devices.n)
    saved = saved_for_backward(model, rows, longest, mixed, config.gradient_checkpointing, skipped)

    # autocast keeps a bfloat16 copy beside trained weights that are multiplied; sharded ones are cast as they are
    # gathered.
    copied = devices.weight_bytes if mixed and not devices.sharded else 0
    if full:  # the head is multiplied, an embedding of its own is looked up
        weights = trained * _FLOAT32 + copied * (body + embedding)
    else:
        frozen = devices.weight_bytes * embedded + (devices.weight_bytes if config.quantize is None else _NF4) * body
        weights = frozen + trained * (_FLOAT32 + copied)
    shards = devices.n if devices.sharded else 1
    gathered = 0.0
    if devices.n > 1 and devices.sharded:
        # Two units: layers, or an embedding where that is larger, each a unit of its own.
        gathered = 2.0 * devices.weight_bytes * max(embedding, body / architecture.num_hidden_layers)
    taught, vocabulary = rows * longest * taught_share, int(architecture.vocab_size)
    # In one piece where the head is trained: log-probabilities and two gradients, float32, when the backward pass
    # begins. Else chunk by chunk (`training/head.py`): logits, their exponentials, slopes in the weights' type.
    at_head = taught * 3 * _FLOAT32 if full else min(taught, CHUNK) * (2 * _FLOAT32 + 2)
    return Footprint(
        parameters=parameters,
        trained=trained,
        weights_gib=weights / shards / GIB,
        optimiser_gib=trained * _ADAM / shards / GIB,
        gradients_gib=trained * _FLOAT32 / shards / GIB,
        activations_gib=(saved.states + saved.again) / GIB,
        logits_gib=at_head * vocabulary / GIB,
        gathered_gib=gathered / GIB,
        flops_a_token=_flops_a_token(architecture, config, longest, taught_share, body, trained),
    )


def _flops_a_token(
    architecture: Any, config: TrainConfig, longest: int, taught_share: float, body: int, trained: int
) -> float:
    """Operations of one step, a token; multiply-adds count two. `body`: parameters without embedding and head.

    Forward 2 a weight; backward 2 for the states and 2 for each trained weight. An embedding is looked up, not
    multiplied; the head sees taught tokens alone; attention adds 4 a token, width and layer, half of it masked away.
    Layers below the lowest adapter have no backward pass and are not computed again.
    """
    full, layers = config.method == "full", architecture.num_hidden_layers
    attention = 2.0 * longest * architecture.hidden_size * layers
    forward = 2.0 * body + attention
    adapter = 0.0 if full else 2.0 * trained
    upper = 1.0 if full else 1.0 - config.skip_layers / layers
    backward = (2.0 * body + 2.0 * attention) * upper + adapter + (2.0 * body if full else adapter)
    head = 2.0 * architecture.vocab_size * architecture.hidden_size * taught_share * (3 if full else 2)
    again = forward * upper + adapter if config.gradient_checkpointing else 0.0
    return float(forward + adapter + backward + head + again)


def _on_meta(architecture: Any, config: TrainConfig, mixed: bool) -> tuple[Any, int]:
    """(the model as it is trained, without storage; its parameters without the adapter)."""
    full = config.method == "full"
    with torch.device("meta"):
        dtype = torch.bfloat16 if mixed and not full else torch.float32
        model: Any = AutoModelForCausalLM.from_config(architecture, dtype=dtype)
        parameters = sum(p.numel() for p in model.parameters())
        try:
            return model if full else get_peft_model(model, lora(config, architecture.num_hidden_layers)), parameters
        except ValueError as error:
            given = f"target_modules: {', '.join(config.target_modules)}"
            raise ConfigError(given, "this model has no such modules", "Name some of its linear modules") from error


class Saved(Record):
    """Bytes that are kept between forward and backward pass, the head's left out."""

    states: float
    """Of all layers and the last norm; where layers are computed again, of layers their inputs alone."""
    again: float = 0.0
    """Of one layer that is computed again."""


def saved_for_backward(model: Any, rows: int, tokens: int, mixed: bool, checkpointed: bool, skipped: int = 0) -> Saved:
    """What a batch of `rows` by `tokens` keeps. `model` stands on the meta device, adapter included; it is used up.

    mixed: matrices are multiplied in bfloat16, whatever the weights are in (autocast). Casts of weights are left out.
    skipped: layers from the bottom without an adapter; they keep nothing, not even inputs to be computed again from
    (`trainer.LeanCheckpointing`). At least one layer is left.
    Raises ModelError for a model whose layers are no list of `num_hidden_layers` modules.

    Two numbers of layers are run, one or two where there are so many: layers are alike, and a model of eighty would
    take long.
    """
    decoder = (model.get_base_model() if hasattr(model, "get_base_model") else model).get_decoder()
    place = _layers(decoder)
    upper = getattr(decoder, place)[skipped:]
    fewer = min(len(upper) - 1, 1)
    found = []
    with FakeTensorMode():
        for n in (fewer, fewer + 1):
            setattr(decoder, place, upper[:n])
            _fake(decoder)
            decoder.train()
            saved, width = _saved(decoder, rows, tokens, mixed, checkpointed)
            found.append(saved - (2.0 * _cast_once(decoder) if mixed else 0.0))
    layer = found[1] - found[0]
    besides = found[0] - fewer * layer
    if not checkpointed:
        return Saved(states=besides + layer * len(upper))
    inputs = float(rows * tokens * decoder.config.hidden_size * width)
    return Saved(states=besides + inputs * len(upper), again=layer)


def _layers(decoder: Any) -> str:
    """What the decoder calls its list of layers."""
    for name, part in decoder.named_children():
        if isinstance(part, torch.nn.ModuleList) and len(part) == decoder.config.num_hidden_layers:
            return str(name)
    raise ModelError(
        type(decoder).__name__, "has no list of layers that could be counted", "Plan for a decoder-only model"
    )


def _fake(decoder: Any) -> None:
    """Weights and buffers of the meta device become fake tensors of the processor."""
    for module in decoder.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=weight.dtype)
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _saved(decoder: Any, rows: int, tokens: int, mixed: bool, wanted: bool) -> tuple[float, int]:
    """(bytes of all tensors that autograd keeps, each storage once, weights left out; bytes of one state's number).

    wanted: the first layer's input is kept, whether or not anything below it is trained.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in decoder.parameters()}
    sizes: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # else a freed storage's address could be another's

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    ids = torch.zeros(rows, tokens, dtype=torch.long)
    # A mask of its own: with none, transformers looks for packed rows, which needs values.
    mask = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        states = decoder.get_input_embeddings()(ids)
        states = states.detach().requires_grad_() if wanted else states
        decoder(inputs_embeds=states, attention_mask=mask, use_cache=False)
    return float(sum(sizes.values())), states.element_size()


def _cast_once(decoder: Any) -> int:
    """Trained weights whose cast to bfloat16 autograd keeps: they count as weights."""
    linear = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    return sum(m.weight.numel() for m in linear if m.weight.requires_grad and m.weight.dtype is torch.float32)


# What a training may run on: this machine, as it is found, or a device that is named.

_SIZE, _TIMES = 1024, 5
"""Of matrices that are multiplied to see how fast this machine is."""
_REACHED_HERE = 0.6
"""Of what large matrices reach on a processor, training reaches so much: roughly what the quickstart's did."""


class Device(Record):
    """One device, as far as a plan needs it."""

    gib: float
    """Its memory."""
    tflops: float
    """Most operations a second that it does, in 10^12."""
    mfu: float = 0.35
    """Share of these that training reaches."""
    weight_bytes: int = 2
    """Of a frozen weight."""
    said: str = ""
    """What was assumed for its rate."""


def device(settings: PlanSettings) -> Device:
    """The device that settings name, else this machine. Raises ConfigError for a name that is not known."""
    known = shipped_yaml("research/devices.yaml", dict[str, Device])
    if settings.on is not None and settings.on not in known:
        raise ConfigError(f"--on {settings.on}", "there is no such device", f"Use {', '.join(known)}, or --tflops")
    here = settings.on is None and settings.tflops is None
    if settings.on is not None:
        found = known[settings.on]
    else:
        found = Device(gib=_memory_gib(), tflops=_measured_tflops() if here else 0.0, weight_bytes=_weight_bytes())
        if here and not _has_gpu():
            found = found.model_copy(update={"mfu": _REACHED_HERE})
    named = {"gib": settings.device_gib, "tflops": settings.tflops, "mfu": settings.mfu}
    found = found.model_copy(update={name: value for name, value in named.items() if value is not None})
    rate = f"{found.tflops:.3g} TFLOP/s a device at most, {found.mfu:.0%} of it reached"
    if here:
        rate += "; the rate is of matrices multiplied on this machine (another one: --on h100, or --tflops)"
    return found.model_copy(update={"said": rate})


def _has_gpu() -> bool:
    return bool(torch.cuda.is_available())


def _weight_bytes() -> int:
    """Frozen weights of this machine's faster type."""
    return 2 if _has_gpu() or batches_in_bfloat16() else 4


def _memory_gib() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory) / 1024**3
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def _measured_tflops() -> float:
    """The best of a few products of matrices, in the type that this machine is faster in; well below a second."""
    gpu = torch.cuda.is_available()
    kind = torch.bfloat16 if gpu or batches_in_bfloat16() else torch.float32
    size = 8 * _SIZE if gpu else _SIZE
    one = torch.ones(size, size, dtype=kind, device="cuda" if gpu else "cpu")
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        one @ one
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(2 * size**3 / min(times) / 1e12)
