"""SCoT with several of its levers at once: what each gives alone, `recipes/ladder` tells.

The levers are those of other methods, whose rows and losses are used as they are: weights on intent, verdict and first
words (`scot_weighted`), rule heads on a middle layer (`scot_headed`).
"""

from __future__ import annotations

import dataclasses

from pydantic import Field

from forethought.policy import Policy
from forethought.records import Example, Record
from forethought.training.methods.base import Job, Material, Procedure, TrainingMethod
from forethought.training.methods.headed import HEADS_WEIGHT, train_headed
from forethought.training.methods.supervised import SCOT_PAPER
from forethought.training.methods.verdict import Emphasis, weighted
from forethought.training.rows import TokenRow


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
        return [self.row(material, example) for example in material.examples]

    def row(self, material: Material, example: Example) -> TokenRow:
        """One example under these levers."""
        example = self.shown(example, material.policy)
        if self.emphasis is not None:
            return weighted(material, example, self.emphasis)
        return material.row(example, reasoning=True)

    def shown(self, example: Example, policy: Policy) -> Example:
        """What of an example is taught: its answer or not, which depends on its content alone, and a thought that
        says more between intent and verdict."""
        bare = {} if _drawn(example, self.answers) else {"answer": "", "answer_complete": False}
        reasoning = example.reasoning
        lines = [reasoning.deliberation] if reasoning.deliberation else []
        if self.form:
            disguise = example.request.operator
            lines.append(f"Form: {disguise.replace('_', ' ')}, which changes nothing." if disguise else "Form: plain.")
        if self.rule:
            named = [policy.rule(rule) for rule in reasoning.violated]
            lines.append("Rule: " + ("; ".join(f"{rule.title} ({rule.id})" for rule in named) or "none") + ".")
        told = reasoning.model_copy(update={"deliberation": "\n".join(lines)})
        return example.model_copy(update={"reasoning": told, **bare})

    @property
    def procedure(self) -> Procedure | None:
        """What trains on the rows, where that is more than the trainer."""
        return (lambda job, _: train_headed(job, self.heads_weight)) if self.heads else None


PLAIN = Levers(emphasis=None)
"""SCoT as it is, no lever pulled."""


def _drawn(example: Example, share: float) -> bool:
    name = example.request.id
    return int(name, 16) < share * float(16 ** len(name))


def combine(job: Job, levers: Levers) -> dict[str, float]:
    """One training with rows and losses of the levers."""
    from forethought.training.run import train_method

    update = {"rows": levers.rows, "procedure": levers.procedure, "procedure_settings": None}
    return train_method(dataclasses.replace(job, method=job.method.model_copy(update=update)))


COMBINED = TrainingMethod(
    name="scot_combined",
    title="SCoT with several levers",
    paper=f"ours, after {SCOT_PAPER}",
    cost="as SCoT; with rule heads a pass of the base model over the rows besides",
    when_to_choose="several levers help: weights on what decides, rule heads, rows without answers",
    rows=Levers().rows,
    procedure=combine,
    procedure_settings=Levers(),
)
METHODS = (COMBINED,)
