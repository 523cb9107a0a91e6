"""A model's hidden state at the last token of a text: of a prompt, where the answer is about to begin, or of a thought.

The base model's own states are what probes read; those of the trained weights show what training made of them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from forethought.errors import ModelError
from forethought.models.prefix import Node, Opening, batch_of, overhead_of, passes, read, share
from forethought.records import Message

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

States = NDArray[np.float32]
Span = tuple[int, int]
"""First token of a part of a prompt, and the one behind its last."""


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


def states_of(
    model: LocalModel,
    prompts: Sequence[Sequence[int]],
    layers: Sequence[int],
    trained: bool,
    opening: Opening | None = None,
) -> dict[int, States]:
    """As `last_states`, by the weights at once."""
    weights = model.model if trained else model.base_weights
    found = {layer: np.zeros((len(prompts), model.base_weights.config.hidden_size), np.float32) for layer in layers}
    with model.adapter_off() if model.settings is not None and not trained else contextlib.nullcontext():
        known = opening.node(weights, not trained) if opening is not None else None
        for nodes in _ends(weights, prompts, [len(ids) - 1 for ids in prompts], known):
            last = torch.tensor([len(node.tokens) - 1 for node in nodes], device=weights.device)
            places = [node.rows[0] for node in nodes]
            for layer, hidden in _pass(weights, model.name, nodes, layers).items():
                found[layer][places] = hidden[torch.arange(len(nodes), device=last.device), last].float().cpu().numpy()
    return found


def span_states(
    model: LocalModel, prompts: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]], layers: Sequence[int]
) -> dict[int, States]:
    """By layer the base model's mean state over each span of each prompt, (prompts, spans, hidden size).

    Every prompt has as many spans, and each holds a token.
    """
    weights = model.base_weights
    shape = (len(prompts), len(spans[0]), int(weights.config.hidden_size))
    found = {layer: np.zeros(shape, dtype=np.float32) for layer in layers}
    with model.adapter_off() if model.settings is not None else contextlib.nullcontext():
        for nodes in _ends(weights, prompts, [min(start for start, _ in row) for row in spans], None):
            for layer, hidden in _pass(weights, model.name, nodes, layers).items():
                for node, row in zip(nodes, hidden, strict=True):
                    parts = [(start - node.start, stop - node.start) for start, stop in spans[node.rows[0]]]
                    means = [row[start:stop].float().mean(0) for start, stop in parts]
                    found[layer][node.rows[0]] = torch.stack(means).cpu().numpy()
    return found


def _ends(
    weights: Any, prompts: Sequence[Sequence[int]], caps: Sequence[int], known: Node | None
) -> Iterator[list[Node]]:
    """The ends of prompts, pass by pass, once what they share is read; `caps` as in `share`."""
    levels = share(prompts, caps, known)
    read(weights, [[node for node in level if not node.rows] for level in levels])
    yield from passes([node for level in levels for node in level if node.rows], overhead_of(weights))


@torch.inference_mode()
def _pass(weights: Any, name: str, nodes: Sequence[Node], layers: Sequence[int]) -> dict[int, torch.Tensor]:
    """By layer the states of nodes side by side, (nodes, tokens of the longest, hidden size)."""
    found: dict[int, torch.Tensor] = {}
    modules, here = _layers(weights, name), threading.get_ident()

    def keep(layer: int, output: Any) -> None:
        if threading.get_ident() != here:
            return  # somebody else's pass of the same weights
        found[layer] = output[0] if isinstance(output, tuple) else output  # B T H
        if layer == max(layers):
            raise _Enough

    handles = [
        modules[layer - 1].register_forward_hook(lambda _module, _inputs, output, layer=layer: keep(layer, output))
        for layer in layers
    ]
    try:
        with contextlib.suppress(_Enough):
            weights.get_decoder()(**batch_of(nodes, weights.device))
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
