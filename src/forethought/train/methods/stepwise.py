"""Reasoning-to-Defend (R2D), Zhu et al. 2025, arXiv 2502.12970: after each step the model says how things stand.

The paper's: steps that end in a pivot, [SAFE], [UNSAFE] or [RETHINK]; contrastive pivot optimisation; LoRA on all
layers. Ours: the steps are SCoT's own findings and no stronger model's distilled reasoning; pivots stand in the thought
alone, the answer has none; they are plain text and no new tokens of the vocabulary, so that the adapter fits the base
model's tokenizer (the pivot is the token in which [SAFE] and [UNSAFE] first differ); [RETHINK] marks a request whose
wording hides what is asked; and the thought ends with SCoT's verdict line, so that there is a verdict with log-odds.
"""

from __future__ import annotations

import re

from forethought.policy import Policy
from forethought.records import Example
from forethought.train.config import TrainConfig
from forethought.train.methods.base import Material, TrainingMethod
from forethought.train.methods.emphasis import thought_of
from forethought.train.objectives.base import Objective
from forethought.train.objectives.pivot import PivotObjective
from forethought.train.rows import TokenRow, prompt_tokens, rival_at, with_rivals

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
    thought = thought_of(material, example)
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


def _pivots(config: TrainConfig, n_layers: int) -> Objective:
    return PivotObjective(config.benign_weight)


REASONING_FIRST = TrainingMethod(
    name="reasoning_first",
    title="Reasoning-to-defend (R2D): a pivot after each step",
    paper="In the manner of Zhu et al. 2025, arXiv 2502.12970",
    rows=stepwise,
    objective=_pivots,
)
