"""Direct preference optimisation (DPO), Rafailov et al. 2023, arXiv 2305.18290."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from forethought.train.objectives.base import Batch, Step
from forethought.train.objectives.means import mean_over_all, others_of, own_of
from forethought.train.objectives.paired import paired_loss
from forethought.train.objectives.weights import before_training, inputs_of


@dataclass(frozen=True)
class PreferenceObjective:
    """The row's own completion is preferred to its other one; rows without another are taught as they are."""

    beta: float = 0.1
    """How far the model may move from its base, the paper's default."""
    sft_weight: float = 1.0
    """Weight of the log-likelihood of what is preferred; 0 is plain DPO, which lets it fall (arXiv 2404.19733)."""
    benign_weight: float = 1.0
    columns: tuple[str, ...] = ("other_input_ids", "other_labels")

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """DPO over rows with two completions, plus `sft_weight` times the paired loss of all preferred ones."""
        own = model(**inputs_of(batch), taught_only=True)
        taught, values = paired_loss(own.log_probs, own.taught, batch["term"], self.benign_weight, step)
        loss = self.sft_weight * taught
        others = others_of(batch, step)
        if others is None:
            return loss, values
        rows, rejecting = others
        n = torch.tensor(len(rows) if "other_of" in batch else 0, device=loss.device)
        chosen = own.log_probs[rows].sum(-1)
        rejected = model(**rejecting, taught_only=True).log_probs.sum(-1)
        with torch.no_grad(), before_training(model):
            chosen_before = model(**own_of(batch, rows), taught_only=True).log_probs.sum(-1)
            rejected_before = model(**rejecting, taught_only=True).log_probs.sum(-1)
        losses, margins = dpo_loss(chosen, rejected, chosen_before, rejected_before, self.beta)
        there = (n > 0).to(losses.dtype)
        preference, value = mean_over_all(losses.sum() * there, n, step)
        _, margin = mean_over_all(margins.sum() * there, n, step)
        return loss + preference, values | {"dpo": value, "margin": margin}


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_before: torch.Tensor,
    rejected_before: torch.Tensor,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(-log sigmoid(beta * margin), margin) of each row, from summed log-probabilities of shape (rows,)."""
    margin = (chosen - chosen_before) - (rejected - rejected_before)
    return -logsigmoid(beta * margin), margin.detach()
