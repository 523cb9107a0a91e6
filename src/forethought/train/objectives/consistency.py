"""Consistency: a disguise must not change the verdict. Ours; a consistency loss in the manner of self-training.

The verdict's probability on a disguised request is drawn to what the model says, at that moment, to the same request
undisguised. Only the disguised side bears the gradient: the plain one is a teacher, and not pulled to the disguise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from forethought.train.objectives.base import Batch, Step
from forethought.train.objectives.means import mean_over_all, others_of
from forethought.train.objectives.paired import paired_loss
from forethought.train.objectives.weights import inputs_of
from forethought.train.rows import IGNORED


@dataclass(frozen=True)
class ConsistencyObjective:
    """The paired loss, and KL(plain || disguised) at the verdict for rows whose other completion is undisguised."""

    benign_weight: float = 1.0
    consistency_weight: float = 1.0
    """Of the divergence, in nats a pair, beside the paired loss."""
    columns: tuple[str, ...] = ("rivals", "other_input_ids", "other_labels", "other_rivals")

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss plus the mean divergence over all pairs of all processes."""
        rivals = batch.get("rivals", torch.full_like(batch["labels"], IGNORED))
        out = model(**inputs_of(batch), rivals=rivals, taught_only=True)
        taught, values = paired_loss(out.log_probs, out.taught, batch["term"], self.benign_weight, step)
        found = others_of(batch, step)
        if found is None:
            return taught, values
        rows, plain = found
        plain_rivals = batch.get("other_rivals", torch.full_like(plain["labels"], IGNORED))
        with torch.no_grad():
            teacher = model(**plain, rivals=plain_rivals, taught_only=True).margins.sum(-1)
        paired = (plain_rivals != IGNORED).any(-1) & (rivals[rows] != IGNORED).any(-1)
        divergence = (verdict_divergence(teacher, out.margins[rows].sum(-1)) * paired).sum()
        loss, value = mean_over_all(divergence, paired.sum(), step)
        return taught + self.consistency_weight * loss, values | {"consistency": value}


def verdict_divergence(plain: torch.Tensor, disguised: torch.Tensor) -> torch.Tensor:
    """KL(plain || disguised) of two-way verdicts in nats, from log-odds of shape (rows,); `plain` bears no gradient.

    Refuse and comply share all probability: what the model would say besides is the paired loss's business.
    """
    plain = plain.detach()
    yes = plain.sigmoid() * (logsigmoid(plain) - logsigmoid(disguised))
    no = (-plain).sigmoid() * (logsigmoid(-plain) - logsigmoid(-disguised))
    divergence: torch.Tensor = yes + no
    return divergence
