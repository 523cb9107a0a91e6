"""SCoT with several of its levers at once: what each gives alone, `recipes/ladder` tells.

The levers are those of other methods, whose rows and losses are used as they are: weights on intent, verdict and first
words (`scot_weighted`), rule heads on a middle layer (`scot_headed`).
"""

from __future__ import annotations

import dataclasses

from pydantic import Field

from forethought.policy import Policy
from forethought.records import Example, Record
from forethought.train.methods.base import Job, Material, Procedure, tunable_method
from forethought.train.methods.emphasis import Emphasis, weighted_by, weighted_objective
from forethought.train.methods.headed import HEADS_WEIGHT, train_headed
from forethought.train.methods.supervised import paired, reasoned
from forethought.train.rows import TokenRow
from forethought.train.run import train_rows


class Levers(Record):
    """Which levers are pulled, and how far."""

    emphasis: Emphasis | None = Emphasis()
    """Weights on what decides; None weighs all tokens alike."""
    heads: bool = False
    """Rule heads on the state before the thought, as an auxiliary loss."""
    heads_weight: float = Field(default=HEADS_WEIGHT, gt=0.0)
    """Of that loss, beside 1 for the thought's."""
    answers: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of the rows that teach an answer; the others end with the thought, so that more rows fit a budget."""
    form: bool = False
    """The thought names the disguise before its verdict, and discards it."""
    rule: bool = False
    """The thought names the rule that is broken, or none, before its verdict, and not behind it alone."""

    def rows(self, material: Material) -> list[TokenRow]:
        """SCoT's rows under these levers."""
        examples = [_told(one, material.policy, self) for one in _shortened(material, self.answers)]
        shown = dataclasses.replace(material, examples=examples)
        return weighted_by(shown, self.emphasis) if self.emphasis is not None else reasoned(shown)


def _told(example: Example, policy: Policy, levers: Levers) -> Example:
    """The example, its thought saying more between intent and verdict."""
    reasoning = example.reasoning
    lines = [reasoning.deliberation] if reasoning.deliberation else []
    if levers.form:
        disguise = example.request.operator
        lines.append(f"Form: {disguise.replace('_', ' ')}, which changes nothing." if disguise else "Form: plain.")
    if levers.rule:
        named = [policy.rule(rule) for rule in reasoning.violated]
        lines.append("Rule: " + ("; ".join(f"{rule.title} ({rule.id})" for rule in named) or "none") + ".")
    told = reasoning.model_copy(update={"deliberation": "\n".join(lines)})
    return example.model_copy(update={"reasoning": told})


def _shortened(material: Material, share: float) -> list[Example]:
    """The examples, all but a share of them without their answer; which ones depends on their content alone."""
    bare = {"answer": "", "answer_complete": False}
    return [one if _drawn(one, share) else one.model_copy(update=bare) for one in material.examples]


def _drawn(example: Example, share: float) -> bool:
    name = example.request.id
    return int(name, 16) < share * float(16 ** len(name))


def combined(levers: Levers) -> Procedure:
    """One training with rows and losses of the levers."""

    def procedure(job: Job) -> dict[str, float]:
        objective = paired if levers.emphasis is None else weighted_objective
        method = job.method.model_copy(update={"rows": levers.rows, "objective": objective, "procedure": None})
        own = dataclasses.replace(job, method=method)
        return train_headed(own, levers.heads_weight) if levers.heads else train_rows(own)

    return procedure


COMBINED = tunable_method(
    Levers(),
    combined,
    name="scot_combined",
    title="SCoT with several levers",
    paper="",
    rows=Levers().rows,
    objective=weighted_objective,
)
