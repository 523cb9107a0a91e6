"""Contrastive pivot optimisation (CPO), Zhu et al. 2025, arXiv 2502.12970.

A pivot is a token that says how the reasoning stands: safe or unsafe. Besides being taught like any token, it is set
against the one that would say the opposite. As in the authors' code: two terms of one weight, the mean over the pivots
of one kind and the mean over those of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from forethought.train.objectives.base import Batch, Step
from forethought.train.objectives.means import mean_over_all
from forethought.train.objectives.paired import paired_loss
from forethought.train.objectives.weights import inputs_of
from forethought.train.rows import IGNORED


@dataclass(frozen=True)
class PivotObjective:
    """The paired loss, and CPO at the tokens that have a rival."""

    benign_weight: float = 1.0
    pivot_weight: float = 1.0
    """Of CPO beside the paired loss, the authors' 1."""
    columns: tuple[str, ...] = ("rivals",)

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss plus CPO; a batch without the column has no pivots."""
        rivals = batch.get("rivals", torch.full_like(batch["labels"], IGNORED))
        out = model(**inputs_of(batch), rivals=rivals, taught_only=True)
        taught, values = paired_loss(out.log_probs, out.taught, batch["term"], self.benign_weight, step)
        pivots, value = pivot_loss(out.margins, batch["labels"][:, 1:], rivals[:, 1:], step)
        return taught + self.pivot_weight * pivots, values | {"pivot": value}


def pivot_loss(
    margins: torch.Tensor, labels: torch.Tensor, rivals: torch.Tensor, step: Step
) -> tuple[torch.Tensor, float]:
    """(loss, value): the mean of -log sigmoid(margin) over each kind of pivot, both added. Shapes (batch, tokens).

    With two pivots the kinds are told apart by which of the two ids is the smaller.
    """
    loss, value = margins.new_zeros(()), 0.0
    where = (rivals != IGNORED) & (labels != IGNORED)
    for kind in (where & (labels < rivals), where & (labels > rivals)):
        found, mean = mean_over_all(-(logsigmoid(margins) * kind).sum(), kind.sum(), step)
        loss, value = loss + found, value + mean
    return loss, value
