"""A model's hidden state at the last token of a text: of a prompt, where the answer is about to begin, or of a thought.

The base model's own states are what probes read; those of the trained weights show what training made of them.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from forethought.errors import ModelError
from forethought.records import Message

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

States = NDArray[np.float32]
Span = tuple[int, int]
"""First token of a part of a prompt, and the one behind its last."""
_BATCH_TOKENS = 4096
"""Most prompt tokens of one pass, padding included."""


class _Enough(Exception):
    """Ends a pass once the highest layer wanted is known: the layers above it are not run."""


def layer_count(model: LocalModel) -> int:
    """Layers of the base model. Raises ModelError for an architecture whose decoder keeps no list of them."""
    return len(_layers(model.base_weights, model.name))


def prompt_ids(model: LocalModel, conversation: Sequence[Message]) -> list[int] | None:
    """Token ids of a prompt; None where the chat template does not take it or the context does not hold it."""
    try:
        ids = model.prompt_ids(conversation)
    except ModelError:
        return None
    longest = int(getattr(model.base_weights.config, "max_position_embeddings", len(ids)))
    return ids if len(ids) <= longest else None


def last_states(
    model: LocalModel, prompts: Sequence[Sequence[int]], layers: Sequence[int], trained: bool = False
) -> dict[int, States]:
    """By layer (1 is the first one's output) the states at each prompt's last token, (prompts, hidden size).

    Adapters are off: these are the base model's own. With `trained` they are those of the weights that think.
    """
    if model.reads_states is not None:
        states: dict[int, States] = model.reads_states(prompts, layers, trained)
        return states
    return states_of(model, prompts, layers, trained)


@dataclass
class Opening:
    """Tokens that prompts commonly begin with, read once for all calls that are given it."""

    tokens: tuple[int, ...]
    read: dict[bool, DynamicCache] = field(default_factory=dict)
    """By whether the weights are the trained ones."""


def states_of(
    model: LocalModel,
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    trained: bool,
    opening: Opening | None = None,
) -> dict[int, States]:
    """As `last_states`, by the weights at once: in no other thread may they run."""
    weights = model.model if trained else model.base_weights
    modules = _layers(weights, model.name)
    width = int(model.base_weights.config.hidden_size)
    found = {layer: np.zeros((len(prompts), width), dtype=np.float32) for layer in layers}
    order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
    off = model.adapter_off() if model.settings is not None and not trained else contextlib.nullcontext()
    shared = _shared(prompts)
    with off, torch.inference_mode():
        if opening is not None and opening.tokens and all(_begins(ids, opening.tokens) for ids in prompts):
            shared = len(opening.tokens)
            if trained not in opening.read:
                opening.read[trained] = _begun(weights, opening.tokens)
            begun: DynamicCache | None = opening.read[trained]
        else:
            begun = _begun(weights, prompts[0][:shared]) if shared else None
        for batch in _batches(order, prompts):
            rows = [prompts[place][shared:] for place in batch]
            for layer, states in _pass(weights, modules, rows, layers, begun).items():
                found[layer][batch] = states
    return found


def span_states(
    model: LocalModel, prompts: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]], layers: Sequence[int]
) -> dict[int, States]:
    """By layer the base model's mean state over each span of each prompt, (prompts, spans, hidden size).

    Every prompt has as many spans, and each holds a token.
    """
    weights, modules = model.base_weights, _layers(model.base_weights, model.name)
    shape = (len(prompts), len(spans[0]), int(weights.config.hidden_size))
    found = {layer: np.zeros(shape, dtype=np.float32) for layer in layers}
    order = sorted(range(len(prompts)), key=lambda place: (-len(prompts[place]), place))
    off = model.adapter_off() if model.settings is not None else contextlib.nullcontext()
    shared = min((_shared(prompts), *(start for row in spans for start, _ in row)))
    with off, torch.inference_mode():
        begun = _begun(weights, prompts[0][:shared]) if shared else None
        for batch in _batches(order, prompts):
            rows = [prompts[place][shared:] for place in batch]
            parts = [[(start - shared, stop - shared) for start, stop in spans[place]] for place in batch]
            for layer, states in _pass(weights, modules, rows, layers, begun, parts).items():
                found[layer][batch] = states
    return found


def _begins(ids: Sequence[int], tokens: Sequence[int]) -> bool:
    """Whether a prompt begins with these, and goes on."""
    return len(ids) > len(tokens) and tuple(ids[: len(tokens)]) == tuple(tokens)


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, the chat template's own; at least one is left to each."""
    if len(prompts) < 2:
        return 0
    ordered = sorted(map(tuple, prompts))
    first, last = ordered[0], ordered[-1]  # what these two begin with, all between them do
    alike = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return min(alike, min(len(prompt) for prompt in prompts) - 1)


def _begun(weights: Any, tokens: Sequence[int]) -> DynamicCache:
    """Keys and values of tokens that all prompts begin with: they are read once."""
    ids = torch.tensor([list(tokens)], device=weights.device)
    cache = DynamicCache(config=weights.config)
    weights.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def _batches(order: Sequence[int], prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of like-long prompts, longest first."""
    start = 0
    while start < len(order):
        n_rows = max(1, _BATCH_TOKENS // max(1, len(prompts[order[start]])))
        yield list(order[start : start + n_rows])
        start += n_rows


def _pass(
    weights: Any,
    modules: Sequence[Any],
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    begun: DynamicCache | None,
    spans: Sequence[Sequence[Span]] | None = None,
) -> dict[int, States]:
    """By layer the states at the last token of each row, which goes on where `begun` ends; or its means over spans."""
    longest = max(len(row) for row in rows)
    past = copy.deepcopy(begun)
    if past is not None:
        past.batch_repeat_interleave(len(rows))
    n_past = past.get_seq_length() if past is not None else 0
    # Padding stands to the right, where a causal model's tokens don't see it: positions need no mending.
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=weights.device)  # B T
    mask = torch.tensor([[1] * (n_past + len(row)) + [0] * (longest - len(row)) for row in rows], device=weights.device)
    last = torch.tensor([len(row) - 1 for row in rows], device=weights.device)
    found: dict[int, States] = {}

    def keep(layer: int, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output  # B T H
        if spans is None:
            found[layer] = hidden[torch.arange(len(rows), device=last.device), last].float().cpu().numpy()
        else:
            means = [
                torch.stack([row[start:stop].float().mean(0) for start, stop in parts])
                for row, parts in zip(hidden, spans, strict=True)
            ]
            found[layer] = torch.stack(means).cpu().numpy()
        if layer == max(layers):
            raise _Enough

    handles = [
        modules[layer - 1].register_forward_hook(lambda _module, _inputs, output, layer=layer: keep(layer, output))
        for layer in layers
    ]
    try:
        with contextlib.suppress(_Enough):
            weights.get_decoder()(input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=past is not None)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _layers(weights: Any, name: str) -> Sequence[Any]:
    layers = getattr(weights.get_decoder(), "layers", None)
    if layers is None:
        raise ModelError(name, "its decoder has no list of layers to read", "Use a model of the Llama kind")
    modules: Sequence[Any] = layers
    return modules
