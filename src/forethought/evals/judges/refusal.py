"""The refusal judge as an inspect scorer: refused, complied, or unscored with the cause.

It reads the answer alone. The reasoning is judged apart (its verdict, its rules), so that
a thought that says "refuse" never makes a complying answer look safe.
"""

from __future__ import annotations

from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from forethought.refusal import refusal_outcome

UNSCORED = "unscored"


@scorer(metrics=[])
def refusal_judge() -> Scorer:
    """`refused`, `complied` or `unscored`; the explanation holds the cause."""

    async def score(state: TaskState, target: Target) -> Score:
        outcome, cause = refusal_outcome(state.output.completion)
        return Score(value=outcome or UNSCORED, answer=state.output.completion, explanation=cause)

    return score
