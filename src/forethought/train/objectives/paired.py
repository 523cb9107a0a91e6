"""The loss of SCoT: refusals and harmless rows, each a mean of its own (arXiv 2501.19180)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from forethought.train.objectives.base import Batch, Step
from forethought.train.rows import TERMS


def paired_loss(
    log_probs: torch.Tensor,  # B T
    taught: torch.Tensor,  # B T, true where a token bears loss
    term: torch.Tensor,  # B
    benign_weight: float,
    step: Step | None = None,
    weights: torch.Tensor | None = None,  # B T
) -> tuple[torch.Tensor, dict[str, float]]:
    """L_refusal + benign_weight * L_benign, each the mean over its rows' taught tokens in all processes.

    With `weights` it is their weighted mean, divided by the sum of the weights: a term is as large as without, so that
    a learning rate means the same. A term without rows in the batch is zero. Returns the loss and each term's value.
    """
    step = step or Step()
    shares = taught.to(log_probs.dtype) if weights is None else taught * weights.to(log_probs.dtype)
    masks = [shares * (term == number).unsqueeze(1) for number in range(len(TERMS))]
    sums = torch.stack([-(log_probs * mask).sum() for mask in masks])
    counts = step.summed(torch.stack([mask.sum() for mask in masks]))
    totals = step.summed(sums.detach())
    loss = log_probs.new_zeros(())
    values: dict[str, float] = {}
    for number, name in enumerate(TERMS):
        if counts[number] == 0:
            continue
        value = sums[number] * step.processes / counts[number]
        values[name] = float(totals[number] / counts[number])
        loss = loss + (value if name == "refusal" else benign_weight * value)
    return loss, values


@dataclass(frozen=True)
class PairedObjective:
    """Supervised fine-tuning on both terms."""

    benign_weight: float = 1.0
    """Lambda of the loss."""
    columns: tuple[str, ...] = ()
    """`weights` where rows have them."""

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss of the batch's taught tokens; the model has a taught head (`head.add_taught_head`)."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        out = model(**inputs, taught_only=True)
        weights = batch["weights"][:, 1:] if "weights" in batch else None
        return paired_loss(out.log_probs, out.taught, batch["term"], self.benign_weight, step, weights)
