"""A model's hidden state at the last token of a text: of a prompt, where the answer is about to begin, or of a thought.

The base model's own states are what probes read; those of the trained weights show what training made of them.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from forethought.errors import ModelError
from forethought.models.known import Known
from forethought.models.prefix import Node, batch_of, decoder_of, fill, overhead_of, passes, share
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


def layers_alike(model: LocalModel) -> int:
    """How many first layers the base and the weights that think have in common, the embedding before them included."""
    stacks = [[one.get_input_embeddings(), *_layers(one, model.name)] for one in (model.base_weights, model.model)]
    pairs = list(itertools.takewhile(lambda pair: _same(*pair), zip(*stacks, strict=True)))
    return max(len(pairs) - 1, 0)


def _same(one: Any, other: Any) -> bool:
    """Whether two modules compute the same; one that an adapter is switched in is never itself."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if one is other:
        return not any(isinstance(part, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for part in one.modules())
    return all(torch.equal(own, base) for own, base in zip(one.parameters(), other.parameters(), strict=True))


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
    known: Known | None = None,
) -> dict[int, States]:
    """As `last_states`, by the weights at once. `known`: what was read before; it keeps what is read now."""
    weights = model.model if trained else model.base_weights
    found = {layer: np.zeros((len(prompts), model.base_weights.config.hidden_size), np.float32) for layer in layers}
    with model.adapter_off() if model.settings is not None and not trained else contextlib.nullcontext():
        caps = [len(ids) - 1 for ids in prompts]
        for nodes, states in _ends(weights, model.name, prompts, caps, layers, known or Known(), not trained):
            last = torch.tensor([len(node.tokens) - 1 for node in nodes], device=weights.device)
            places = [node.rows[0] for node in nodes]
            for layer in layers:
                here = states[layer][torch.arange(len(nodes), device=last.device), last]
                found[layer][places] = here.float().cpu().numpy()
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
        caps = [min(start for start, _ in row) for row in spans]
        for nodes, states in _ends(weights, model.name, prompts, caps, layers, Known(), True):
            for layer in layers:
                for node, row in zip(nodes, states[layer], strict=True):
                    parts = [(start - node.start, stop - node.start) for start, stop in spans[node.rows[0]]]
                    means = [row[start:stop].float().mean(0) for start, stop in parts]
                    found[layer][node.rows[0]] = torch.stack(means).cpu().numpy()
    return found


def _ends(
    weights: Any,
    name: str,
    prompts: Sequence[Sequence[int]],
    caps: Sequence[int],
    layers: Sequence[int],
    known: Known,
    by_base: bool,
) -> Iterator[tuple[list[Node], dict[int, torch.Tensor]]]:
    """The ends of prompts, pass by pass, and by layer their states (nodes, tokens of the longest, hidden size), once
    what they share is read; `caps` as in `share`."""
    levels = share(prompts, caps, known.node(weights, by_base))
    known.resume(levels, prompts, by_base, min(layers))
    kept, overhead = known.depth(max(layers), by_base), overhead_of(weights)
    noted = sorted({*layers, kept} - {0})
    for level in levels:
        for nodes in passes([node for node in level if not node.rows], overhead):
            _pass(weights, name, nodes, noted, kept, hold=True)
    for nodes in passes([node for level in levels for node in level if node.rows], overhead):
        yield nodes, _pass(weights, name, nodes, noted, kept, hold=kept > 0)
        for node in nodes if kept else ():
            known.keep(prompts[node.row], node, kept, by_base)


@torch.inference_mode()
def _pass(
    weights: Any, name: str, nodes: Sequence[Node], layers: Sequence[int], kept: int, hold: bool
) -> dict[int, torch.Tensor]:
    """By layer the states of nodes side by side. With `hold` the nodes are filled, and keep those of one layer."""
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
    inputs = batch_of(nodes, weights.device)
    try:
        with contextlib.suppress(_Enough):
            decoder_of(weights, nodes)(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    if hold:
        fill(nodes, inputs["past_key_values"], max(layers), found.get(kept))
    return found


def _layers(weights: Any, name: str) -> Sequence[Any]:
    layers = getattr(weights.get_decoder(), "layers", None)
    if layers is None:
        raise ModelError(name, "its decoder has no list of layers to read", "Use a model of the Llama kind")
    modules: Sequence[Any] = layers
    return modules
