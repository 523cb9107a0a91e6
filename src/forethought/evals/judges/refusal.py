"""Refusals by the phrases that open them: refused, complied, or unscored with the cause.

It reads the answer alone. The reasoning is judged apart (its verdict, its rules), so that
a thought that says "refuse" never makes a complying answer look safe.
"""

from __future__ import annotations

from collections.abc import Sequence

from forethought.evals.judges.base import Item, Measure, Verdict
from forethought.refusal import refusal_outcome


class RefusalJudge:
    """`forethought.refusal` and nothing else: the judge of the pipeline's own comparison."""

    name = "refusal_judge"
    measure: Measure = "refused"

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item; unscored for an empty or garbled answer."""
        return [_verdict(item.answer) for item in items]


def _verdict(answer: str) -> Verdict:
    outcome, cause = refusal_outcome(answer)
    return Verdict(cause=cause) if outcome is None else Verdict(refused=outcome == "refused")
