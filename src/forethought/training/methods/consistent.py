"""Consistency: a disguise must not change the verdict. Ours; a consistency loss in the manner of self-training.

The verdict's probability on a disguised request is drawn to what the model says, at that moment, to the same request
undisguised. Only the disguised side bears the gradient: the plain one is a teacher, and not pulled to the disguise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forethought.records import Example, Message, Request
from forethought.training.config import TrainConfig
from forethought.training.methods.base import Material, TrainingMethod
from forethought.training.objective import Batch, Objective, Step, inputs_of, mean_over_all, others_of, paired_loss
from forethought.training.rows import (
    IGNORED,
    TokenRow,
    opposite,
    prompt_tokens,
    rival_at,
    verdict_span,
    with_other,
    with_rivals,
)

if TYPE_CHECKING:
    import torch


def consistent(material: Material) -> list[TokenRow]:
    """SCoT's rows; a disguised request's other completion is the same thought on the undisguised request, as far as
    the verdict, where alone it is looked at."""
    return [_consistent(material, example) for example in material.examples]


def _consistent(material: Material, example: Example) -> TokenRow:
    row = material.row(example, reasoning=True)
    plain = undisguised(example.request)
    if plain is None:
        return row
    thought = material.thought(example)
    span = verdict_span(thought)
    found = rival_at(material.tokenizer, thought, span, opposite(example.reasoning.verdict))
    other = material.row(example.model_copy(update={"request": plain}), reasoning=True)
    end = prompt_tokens(other) + found[0] + 1
    other = other.model_copy(update={"input_ids": other.input_ids[:end], "labels": other.labels[:end]})
    return with_other(with_rivals(row, prompt_tokens(row), [found]), with_rivals(other, prompt_tokens(other), [found]))


def undisguised(request: Request) -> Request | None:
    """The request as it was before it was restyled; None for one that never was."""
    if request.operator is None or request.seed_text is None:
        return None
    last = Message(role=request.messages[-1].role, content=request.seed_text)
    return request.model_copy(update={"messages": (*request.messages[:-1], last), "operator": None, "seed_text": None})


@dataclass(frozen=True)
class ConsistencyObjective:
    """The paired loss, and KL(plain || disguised) at the verdict for rows whose other completion is undisguised."""

    benign_weight: float = 1.0
    consistency_weight: float = 1.0
    """Of the divergence, in nats a pair, beside the paired loss."""
    columns: tuple[str, ...] = ("rivals", "other_input_ids", "other_labels", "other_rivals")

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss plus the mean divergence over all pairs of all processes."""
        import torch

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
    from torch.nn.functional import logsigmoid

    plain = plain.detach()
    yes = plain.sigmoid() * (logsigmoid(plain) - logsigmoid(disguised))
    no = (-plain).sigmoid() * (logsigmoid(-plain) - logsigmoid(-disguised))
    divergence: torch.Tensor = yes + no
    return divergence


def _consistent_objective(config: TrainConfig, n_layers: int) -> Objective:
    return ConsistencyObjective(config.benign_weight)


CONSISTENT = TrainingMethod(
    name="scot_consistent",
    title="SCoT, one verdict for all disguises",
    paper="ours",
    cost="as SCoT, and a pass without gradients over the plain side of each disguised row",
    when_to_choose="verdicts change with the disguise though the request does not",
    rows=consistent,
    objective=_consistent_objective,
)
METHODS = (CONSISTENT,)
