"""Hidden states of a prompt, moved while a model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from forethought.train.objectives.base import Batch
from forethought.train.objectives.weights import layers_of
from forethought.train.rows import IGNORED


def prompt_mask(labels: torch.Tensor) -> torch.Tensor:
    """(batch, tokens): true before the first taught token of each row."""
    before: torch.Tensor = (labels != IGNORED).cumsum(1) == 0
    return before


def ball(delta: torch.Tensor, radius: float) -> torch.Tensor:
    """Each token's vector (last dimension) pulled back to the L2 ball."""
    norm = delta.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    pulled: torch.Tensor = delta * (radius / norm).clamp(max=1.0)
    return pulled


def states_entering(model: Any, layers: Sequence[int], inputs: Batch, tokens: int) -> dict[int, torch.Tensor]:
    """The first `tokens` states entering each layer, (batch, tokens, width), by layer."""
    asked = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        states = model(**asked, taught_only=True, output_hidden_states=True).hidden_states
    return {layer: states[layer][:, :tokens].detach().float() for layer in layers}


@contextmanager
def perturbed(model: Any, deltas: Mapping[int, torch.Tensor], where: torch.Tensor) -> Iterator[None]:
    """While it lasts, each delta (batch, n tokens, width) is added to the first n states entering its layer.

    `where` (batch, tokens) is true for the tokens that may be moved: the prompt's.
    """
    blocks = layers_of(model)

    def add(delta: torch.Tensor) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            states = args[0] if args else kwargs["hidden_states"]
            n = min(delta.shape[1], states.shape[1])
            shift = torch.zeros_like(states)
            shift[:, :n] = (delta[:, :n] * where[:, :n].unsqueeze(-1)).to(states.dtype)
            moved = states + shift
            return ((moved, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": moved})

        return hook

    handles = [blocks[layer].register_forward_pre_hook(add(delta), with_kwargs=True) for layer, delta in deltas.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
