"""Log-probabilities of taught tokens alone.

The vocabulary's projection is the dearest layer of a small model. TRL's fused head
projects every position on processors without Triton; this one projects only positions
whose next token is taught, everywhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from transformers.utils import ModelOutput

from forethought.train.log_probs import target_log_probs
from forethought.train.packing import run_packed
from forethought.train.rows import IGNORED


@dataclass
class TaughtLogProbs(ModelOutput):  # type: ignore[misc]
    """What the patched forward returns when asked for taught tokens."""

    log_probs: torch.Tensor | None = None
    """(batch, tokens - 1): log-probability of each next token, 0 where it is not taught."""
    taught: torch.Tensor | None = None
    """(batch, tokens - 1): true where the next token is taught."""
    hidden_states: tuple[torch.Tensor, ...] | None = None
    """(batch, tokens, width) after the embedding and after each layer, where asked for with output_hidden_states."""
    margins: torch.Tensor | None = None
    """(batch, tokens - 1): log-probability of the taught token less its rival's, 0 where it has none; where `rivals`
    are given."""


def add_taught_head(model: Any, packed: bool = False) -> None:
    """Patches `model.forward`: with `taught_only=True` it returns TaughtLogProbs.

    Without labels nothing is projected: only hidden states are wanted. With `packed`, rows run end to end without
    their padding (`packing.pack_attention` first); what comes back is shaped as without.

    `rivals` (batch, tokens) is as `TokenRow.rivals`. With `taught_only=False` the forward is as before.

    Patch before wrapping with PEFT or a parallel wrapper, so that calls go through those.
    """
    original = model.forward
    text_config = model.config.get_text_config()

    @functools.wraps(type(model).forward)
    def forward(
        self: Any, *args: Any, taught_only: bool = False, labels: Any = None, rivals: Any = None, **kwargs: Any
    ) -> Any:
        if not taught_only:
            return original(*args, labels=labels, **kwargs) if labels is not None else original(*args, **kwargs)
        kwargs["use_cache"] = False
        out = run_packed(self.base_model, *args, **kwargs) if packed else self.base_model(*args, **kwargs)
        if labels is None:
            return TaughtLogProbs(hidden_states=out.hidden_states)
        hidden = out.last_hidden_state[:, :-1]  # B T-1 D
        targets = labels[:, 1:]
        taught = targets != IGNORED
        chosen = target_log_probs(self.get_output_embeddings(), hidden[taught], targets[taught], text_config)
        log_probs = chosen.new_zeros(targets.shape).masked_scatter(taught, chosen)
        margins = None
        if rivals is not None:
            has = taught & (rivals[:, 1:] != IGNORED)
            rival = target_log_probs(self.get_output_embeddings(), hidden[has], rivals[:, 1:][has], text_config)
            margins = log_probs * has - rival.new_zeros(targets.shape).masked_scatter(has, rival)
        return TaughtLogProbs(log_probs=log_probs, taught=taught, hidden_states=out.hidden_states, margins=margins)

    model.forward = MethodType(forward, model)
