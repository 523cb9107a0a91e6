"""What a training changes of a model's forward pass: its attention kernels, and a head for taught tokens alone.

Attention: scores written out for short rows on a processor, and rows end to end. Written out: torch's own kernel takes
four times as long there, most of it going back. The table of scores costs the square of a row's tokens in memory.
Numbers are those of transformers' `eager` attention, but for the softmax, whose result alone is in the working type.

Rows end to end in one sequence, without padding and without seeing each other: a batch is the same rows and its loss
the same sum as with padding; what is saved is the arithmetic on padding. Each row attends to itself alone:
FlashAttention's kernel for rows of unlike lengths where it is installed, and elsewhere torch's own causal kernel row by
row. A block-diagonal mask over the whole sequence would be right as well, but costs the square of the batch's tokens.

The head: log-probabilities of taught tokens alone, without a table of tokens by vocabulary. The vocabulary's projection
is the dearest layer of a small model. TRL's fused head projects every position on processors without Triton; this one
projects only positions whose next token is taught, everywhere.

The table is the largest tensor of a training step: a thousand tokens by fifty thousand words, in float32, with its
gradient. Here it is made chunk by chunk. Where the head is frozen (any adapter), a token's gradient is its log-
probability's own, scaled by one number from behind, so that it is worked out while the chunk is there: nothing is
kept but (tokens, width), and nothing is computed twice, as it is where chunks are projected again in the backward pass
(TRL's fused head; Liger's, arXiv 2410.10989, has the idea for a mean loss).
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from forethought.errors import ConfigError
from forethought.models.weights import batches_in_bfloat16
from forethought.training.rows import IGNORED

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
    if torch.cuda.is_available() or not batches_in_bfloat16() or longest > LONGEST:
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
    their padding (`pack_attention` first); what comes back is shaped as without.

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


CHUNK = 256
"""Tokens projected at once: enough rows to keep matrix units busy, 50 MB at a vocabulary of fifty thousand."""


def logit_shape(config: Any) -> tuple[float, float | None]:
    """(factor on the logits, soft cap or None) that a model's own forward applies between head and loss.

    Cohere scales, Granite divides, Gemma 2 caps; read off the names that their configs give it.
    """
    factor = getattr(config, "logit_scale", None)
    factor = getattr(config, "lm_head_multiplier", None) if factor is None else factor
    if factor is None and getattr(config, "logits_scaling", None) is not None:
        factor = 1.0 / config.logits_scaling
    return 1.0 if factor is None else float(factor), getattr(config, "final_logit_softcapping", None)


def shaped(logits: torch.Tensor, factor: float, cap: float | None) -> torch.Tensor:
    """Logits as the model's own forward gives them, in float32; the input may be written over."""
    logits = logits.float()
    if factor != 1.0:
        logits = logits * factor
    return logits if cap is None else cap * torch.tanh(logits / cap)


class ChunkedLogProbs(torch.autograd.Function):
    """Log-probability of each target under `shaped(hidden @ weight.T + bias)`; gradients reach `hidden` alone.

    hidden (N, D), weight (V, D) and bias (V,) or None, frozen; targets (N,). Returns (N,) in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        factor: float,
        cap: float | None,
    ) -> torch.Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        log_probs = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradients = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            own = targets[part].unsqueeze(1)  # n 1
            logits = shaped(torch.nn.functional.linear(hidden[part].to(dtype), weight, bias), factor, cap)  # n V
            log_z = torch.logsumexp(logits, dim=1, keepdim=True)
            log_probs[part] = (logits.gather(1, own) - log_z).squeeze(1)
            if gradients is not None:
                gradients[part] = (_slopes(logits, log_z, own, factor, cap).to(dtype) @ weight).to(hidden.dtype)
        if gradients is not None:
            ctx.save_for_backward(gradients)
        return log_probs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradients,) = ctx.saved_tensors
        return (gradients * grad.unsqueeze(1)).to(gradients.dtype), None, None, None, None, None


def _slopes(
    logits: torch.Tensor, log_z: torch.Tensor, own: torch.Tensor, factor: float, cap: float | None
) -> torch.Tensor:
    """Derivative of each target's log-probability in the projection before factor and cap, (n, V)."""
    inner = None if cap is None else 1.0 - (logits / cap) ** 2
    slopes = logits.sub_(log_z).exp_().neg_()  # n V: minus the probabilities, in the logits' place
    slopes.scatter_add_(1, own, torch.ones_like(own, dtype=slopes.dtype))
    if inner is not None:
        slopes *= inner
    return slopes if factor == 1.0 else slopes.mul_(factor)


def target_log_probs(head: Any, hidden: torch.Tensor, targets: torch.Tensor, config: Any) -> torch.Tensor:
    """Log-probabilities (N,) of targets (N,) after hidden states (N, D), through a model's output head.

    A head that is trained, quantised, adapted, or partitioned by DeepSpeed is called as a module, in one piece.
    """
    factor, cap = logit_shape(config)
    weight: Any = getattr(head, "weight", None)
    if type(head) is torch.nn.Linear and not weight.requires_grad and not hasattr(weight, "ds_id"):
        whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight  # FSDP2 may hold a part of it
        bias: Any = head.bias
        bias = bias.full_tensor() if hasattr(bias, "full_tensor") else bias
        apply: Any = ChunkedLogProbs.apply  # torch leaves it untyped
        found: torch.Tensor = apply(hidden, whole, bias, targets, factor, cap)
        return found
    logits = shaped(head(hidden), factor, cap)  # N V
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
