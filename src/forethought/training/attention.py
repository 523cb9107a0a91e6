"""Attention kernels of a training: scores written out for short rows on a processor, and rows end to end.

Written out: torch's own kernel takes four times as long there, most of it going back. The table of scores costs the
square of a row's tokens in memory. Numbers are those of transformers' `eager` attention, but for the softmax, whose
result alone is in the working type.

Rows end to end in one sequence, without padding and without seeing each other: a batch is the same rows and its loss
the same sum as with padding; what is saved is the arithmetic on padding. Each row attends to itself alone:
FlashAttention's kernel for rows of unlike lengths where it is installed, and elsewhere torch's own causal kernel row by
row. A block-diagonal mask over the whole sequence would be right as well, but costs the square of the batch's tokens.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from forethought.errors import ConfigError
from forethought.models.weights import has_fast_bfloat16

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


ROWS = "forethought_rows"
"""Name of the kernel among transformers'. It has no mask function there, so that no mask is made."""
_FLASH = "flash_attention_2"
_OFF = "Set packing: false"


def pack_attention(model: Any) -> str:
    """Switches a model to attention by rows; returns the kernel's name.

    Raises ConfigError for a model whose layers are not all plain attention: its other layers would carry states
    from one row to the next.
    """
    config = model.config.get_text_config()
    kinds = {str(kind) for kind in getattr(config, "layer_types", None) or ()} - {"full_attention", "sliding_attention"}
    recurrent = any(hasattr(config, name) for name in ("ssm_cfg", "mamba_d_conv", "linear_conv_kernel_dim"))
    if kinds or recurrent or not model._supports_attention_backend:
        raise ConfigError("packing: true", f"can't keep rows apart in a {type(model).__name__}", _OFF)
    flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    kernel = _FLASH if flash else ROWS
    AttentionInterface.register(ROWS, attend_by_rows)
    model.set_attn_implementation(kernel)
    return kernel


def run_packed(decoder: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
    """Runs a decoder on padded rows (batch, tokens) as one sequence; states come back padded, zero at padding.

    Real tokens are those of `attention_mask`. Raises ConfigError where states are given instead of ids.
    """
    real = attention_mask.bool()
    lengths = [int(length) for length in real.sum(1)]
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=input_ids.device)
    positions = torch.cat([torch.arange(length, device=input_ids.device) for length in lengths])
    out = decoder(
        input_ids=input_ids[real].unsqueeze(0),
        position_ids=positions.unsqueeze(0),
        attention_mask=None,
        row_lengths=lengths,
        cu_seq_lens_q=ends,
        cu_seq_lens_k=ends,
        max_length_q=max(lengths),
        max_length_k=max(lengths),
        **kwargs,
    )
    states = out.hidden_states
    return BaseModelOutputWithPast(
        last_hidden_state=_padded(out.last_hidden_state, real),
        hidden_states=None if states is None else tuple(_padded(one, real) for one in states),
    )


def _padded(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(1, real tokens, width) to (batch, tokens, width)."""
    empty = states.new_zeros(*real.shape, states.shape[-1])
    return empty.masked_scatter(real.unsqueeze(-1), states)


def attend_by_rows(
    module: Any,
    query: torch.Tensor,  # 1 H N d
    key: torch.Tensor,  # 1 K N d, K key heads
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    row_lengths: list[int] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row; (1, N, H, d). Raises ConfigError for what the kernel can't do."""
    window = kwargs.get("sliding_window")
    if row_lengths is None or (window is not None and max(row_lengths) > window):
        raise ConfigError("packing: true", "this call asks for attention that the kernel by rows has not", _OFF)
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise ConfigError("packing: true", "this model caps, sinks or biases its attention", _OFF)
    groups = query.shape[1] // key.shape[1]
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            q,
            k.repeat_interleave(groups, dim=1),
            v.repeat_interleave(groups, dim=1),
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
        )
        for q, k, v in zip(
            torch.split(query, row_lengths, dim=2),
            torch.split(key, row_lengths, dim=2),
            torch.split(value, row_lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None
