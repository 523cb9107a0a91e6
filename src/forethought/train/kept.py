"""What autograd keeps for the backward pass, counted without storage.

A model of torch's fake tensors runs once, under the number types that training uses: what is saved has the shapes and
types of the real thing, on a processor's attention kernel, for any dense decoder that transformers knows, at any size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from forethought.errors import ModelError
from forethought.records import Record


class Kept(Record):
    """Bytes that are kept between forward and backward pass, the head's left out."""

    states: float
    """Of all layers and the last norm; where layers are computed again, of layers their inputs alone."""
    again: float = 0.0
    """Of one layer that is computed again."""


def kept_for_backward(model: Any, rows: int, tokens: int, mixed: bool, checkpointed: bool, skipped: int = 0) -> Kept:
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
        return Kept(states=besides + layer * len(upper))
    inputs = float(rows * tokens * decoder.config.hidden_size * width)
    return Kept(states=besides + inputs * len(upper), again=layer)


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
