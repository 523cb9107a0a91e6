"""SCoT by preference: direct preference optimisation (DPO), Rafailov et al. 2023, arXiv 2305.18290."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forethought.reasoning import SafetyReasoning
from forethought.records import Example
from forethought.training.methods.base import Material, TrainingMethod
from forethought.training.objective import (
    Batch,
    Step,
    before_training,
    inputs_of,
    mean_over_all,
    others_of,
    own_of,
    paired_loss,
)
from forethought.training.rows import TokenRow, with_other

if TYPE_CHECKING:
    import torch


def reasoned_against_wrong(material: Material) -> list[TokenRow]:
    """Right thoughts against the opposite verdict: compliance with harm, and refusal of what is harmless.

    The other completion of a harmful row complies and gives the base model's own answer; that of a harmless row
    refuses, naming the first rule of the policy: over-refusal is rejected as much as harm is.
    """
    rows = []
    for example in material.examples:
        own = material.row(example, reasoning=True)
        if example.term == "refusal":
            wrong: Example | None = material.complying(example)
            verdict = SafetyReasoning(intent=example.reasoning.intent, verdict="comply")
        else:
            wrong = example.model_copy(update={"answer": "", "answer_complete": False})
            verdict = SafetyReasoning(intent=example.reasoning.intent, verdict="refuse")
        if wrong is None:
            rows.append(own)
            continue
        rows.append(with_other(own, material.row(wrong.model_copy(update={"reasoning": verdict}), reasoning=True)))
    return rows


@dataclass(frozen=True)
class PreferenceObjective:
    """The row's own completion is preferred to its other one; rows without another are taught as they are."""

    beta: float = 0.1
    """How far the model may move from its base, the paper's default."""
    sft_weight: float = 1.0
    """Weight of the log-likelihood of what is preferred; 0 is plain DPO, which lets it fall (arXiv 2404.19733)."""
    benign_weight: float = 1.0

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """DPO over rows with two completions, plus `sft_weight` times the paired loss of all preferred ones."""
        import torch

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
    from torch.nn.functional import logsigmoid

    margin = (chosen - chosen_before) - (rejected - rejected_before)
    return -logsigmoid(beta * margin), margin.detach()


PREFERENCE = TrainingMethod(
    name="scot_dpo",
    title="SCoT by preference (DPO)",
    paper="Rafailov et al. 2023, arXiv 2305.18290; for safe reasoning, STAIR: Zhang et al. 2025, arXiv 2502.02384",
    cost="two completions a row and a reference pass over both; at inference as SCoT",
    when_to_choose="SCoT gives the wrong verdict with confidence: the opposite one is taught against",
    rows=reasoned_against_wrong,
    objective=lambda config, _: PreferenceObjective(benign_weight=config.benign_weight),
    needs_complied=True,
)
METHODS = (PREFERENCE,)
