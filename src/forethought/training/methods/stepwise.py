"""Reasoning-to-Defend (R2D), Zhu et al. 2025, arXiv 2502.12970: after each step the model says how things stand.

The paper's: steps that end in a pivot, [SAFE], [UNSAFE] or [RETHINK]; contrastive pivot optimisation; LoRA on all
layers. Ours: the steps are SCoT's own findings and no stronger model's distilled reasoning; pivots stand in the thought
alone, the answer has none; they are plain text and no new tokens of the vocabulary, so that the adapter fits the base
model's tokenizer (the pivot is the token in which [SAFE] and [UNSAFE] first differ); [RETHINK] marks a request whose
wording hides what is asked; and the thought ends with SCoT's verdict line, so that there is a verdict with log-odds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forethought.policy import Policy
from forethought.records import Example
from forethought.training.config import TrainConfig
from forethought.training.methods.base import Material, TrainingMethod
from forethought.training.objective import Batch, Objective, Step, inputs_of, mean_over_all, paired_loss
from forethought.training.rows import IGNORED, TokenRow, prompt_tokens, rival_at, with_rivals

if TYPE_CHECKING:
    import torch


SAFE, UNSAFE, RETHINK = "[SAFE]", "[UNSAFE]", "[RETHINK]"
_PIVOT = re.compile(r"(?m)^\[(?:SAFE|UNSAFE)\]$")
_DISGUISED = "The wording hides it; what is asked counts."
_CLEAR = "No rule is broken."


def stepwise(material: Material) -> list[TokenRow]:
    """SCoT's rows with a thought in steps, each followed by a pivot on a line of its own."""
    return [_stepwise(material, example) for example in material.examples]


def _stepwise(material: Material, example: Example) -> TokenRow:
    reasoning = example.reasoning.model_copy(update={"deliberation": steps_of(example, material.policy)})
    example = example.model_copy(update={"reasoning": reasoning})
    row = material.row(example, reasoning=True)
    thought = material.thought(example)
    found = [
        rival_at(material.tokenizer, thought, match.span(), SAFE if match[0] == UNSAFE else UNSAFE)
        for match in _PIVOT.finditer(thought)
    ]
    return with_rivals(row, prompt_tokens(row), found)


def steps_of(example: Example, policy: Policy) -> str:
    """What stands between intent and verdict: a pivot for the intent, then steps with theirs.

    A disguised request is thought about again before it is called safe or unsafe, a harmless one as well as a harmful
    one: the disguise decides nothing.
    """
    reasoning = example.reasoning
    pivot = UNSAFE if reasoning.verdict == "refuse" else SAFE
    lines = [RETHINK, _DISGUISED, pivot] if example.request.operator is not None else [pivot]
    if reasoning.deliberation:
        lines += [reasoning.deliberation.strip(), pivot]
    for finding in reasoning.findings:
        if finding.violated:
            rule = policy.rule(finding.rule)
            lines += [f"It breaks the rule on {rule.title} ({rule.id}).", UNSAFE]  # the verdict says why
    if reasoning.verdict == "comply":
        lines += [_CLEAR, SAFE]
    return "\n".join(lines)


@dataclass(frozen=True)
class PivotObjective:
    """The paired loss, and contrastive pivot optimisation (CPO) at the tokens that have a rival.

    A pivot is a token that says how the reasoning stands: safe or unsafe. Besides being taught like any token, it is
    set against the one that would say the opposite. As in the authors' code: two terms of one weight, the mean over the
    pivots of one kind and the mean over those of the other.
    """

    benign_weight: float = 1.0
    pivot_weight: float = 1.0
    """Of CPO beside the paired loss, the authors' 1."""
    columns: tuple[str, ...] = ("rivals",)

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss plus CPO; a batch without the column has no pivots."""
        import torch

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
    from torch.nn.functional import logsigmoid

    loss, value = margins.new_zeros(()), 0.0
    where = (rivals != IGNORED) & (labels != IGNORED)
    for kind in (where & (labels < rivals), where & (labels > rivals)):
        found, mean = mean_over_all(-(logsigmoid(margins) * kind).sum(), kind.sum(), step)
        loss, value = loss + found, value + mean
    return loss, value


def _pivots(config: TrainConfig, n_layers: int) -> Objective:
    return PivotObjective(config.benign_weight)


REASONING_FIRST = TrainingMethod(
    name="reasoning_first",
    title="Reasoning-to-defend (R2D): a pivot after each step",
    paper="in the manner of Zhu et al. 2025, arXiv 2502.12970",
    cost="one pass; some fifteen more tokens of thought than SCoT, and as many again for a disguised request",
    when_to_choose="the thought is to say after each step how things stand, or a data set brings steps of its own",
    rows=stepwise,
    objective=_pivots,
)
METHODS = (REASONING_FIRST,)
