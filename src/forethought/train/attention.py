"""Attention for short rows on a processor: torch's own kernel takes four times as long there, most of it going back.

The table of scores is written out, which costs the square of a row's tokens in memory. Numbers are those of
transformers' `eager` attention, but for the softmax, whose result alone is in the working type.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from forethought.engine.device import has_fast_bfloat16

WRITTEN_OUT = "forethought_written_out"
"""Name of the kernel among transformers'."""
LONGEST = 384
"""Tokens of a row up to which it is faster and its memory small: 21 MB a layer for eight rows of nine heads."""


def suit_attention(model: Any, longest: int) -> None:
    """Switches a model to this attention where it is faster: bfloat16 on a processor, no longer row than `LONGEST`.

    A model whose attention is not plain (windows, caps, sinks) stays as it is.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    plain = not kinds and not any(getattr(config, name, None) for name in _NOT_PLAIN)
    if torch.cuda.is_available() or not has_fast_bfloat16() or longest > LONGEST:
        return
    if plain and model._supports_attention_backend and config._attn_implementation == "sdpa":
        AttentionInterface.register(WRITTEN_OUT, attend)
        AttentionMaskInterface.register(WRITTEN_OUT, eager_mask)
        model.set_attn_implementation(WRITTEN_OUT)


_NOT_PLAIN = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size")


def attend(
    module: Any,
    query: torch.Tensor,  # B H T d
    key: torch.Tensor,  # B K T d, K key heads
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # B 1 T T, added
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Softmax of scaled products plus mask, times the values; (B, T, H, d).

    Query heads that share a key head are multiplied with it together, so that keys are not copied.
    """
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    shared = (rows, key.shape[1], groups * length, width)
    scale = width**-0.5 if scaling is None else scaling
    scores = (query * scale).reshape(shared) @ key.transpose(-1, -2)  # B K GT T
    scores = scores.view(rows, heads, length, key.shape[2])
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[2]]
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    if dropout:
        weights = torch.nn.functional.dropout(weights, dropout)
    mixed = weights.view(*shared[:3], -1) @ value  # B K GT d
    return mixed.view(rows, heads, length, width).transpose(1, 2).contiguous(), None
