"""Log-probabilities of taught tokens alone, without a table of tokens by vocabulary.

The vocabulary's projection is the dearest layer of a small model. TRL's fused head projects every position on
processors without Triton; this one projects only positions whose next token is taught, everywhere.

The table is the largest tensor of a training step: a thousand tokens by fifty thousand words, in float32, with its
gradient. Here it is made chunk by chunk. Where the head is frozen (any adapter), a token's gradient is its log-
probability's own, scaled by one number from behind, so that it is worked out while the chunk is there: nothing is
kept but (tokens, width), and nothing is computed twice, as it is where chunks are projected again in the backward pass
(TRL's fused head; Liger's, arXiv 2410.10989, has the idea for a mean loss).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from transformers.utils import ModelOutput

from forethought.training.attention import run_packed
from forethought.training.rows import IGNORED


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
