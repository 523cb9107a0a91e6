"""Pairs put to a model and heard, resumable at the attempt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forethought.engine.conversation import Respondent
from forethought.engine.settings import THINK_BUDGET
from forethought.errors import StageError
from forethought.evals.suite.judged import read_replies
from forethought.evals.suite.plan import PlanSummary, write_plan
from forethought.evals.suite.records import Judged, PlannedAttempt
from forethought.evals.suite.run import run_suite
from forethought.policy import Policy
from forethought.reasoning import Format
from forethought.records import Record
from forethought.train.hardening.pairs import Pair
from forethought.train.hardening.reading import Heard, hear


class Answered(Record):
    """A pair, and what the model did with its two requests."""

    pair: Pair
    harmful: Heard
    harmless: Heard

    @property
    def got_through(self) -> bool:
        """Whether the attack made it comply with the harmful request."""
        return self.harmful.wrong(harmful=True)

    @property
    def falsely_refused(self) -> bool:
        """Whether it refused the harmless request."""
        return self.harmless.wrong(harmful=False)


def ask(
    folder: Path, model: Respondent, pairs: Sequence[Pair], max_answer_tokens: int, policy: Policy, fmt: Format
) -> list[Answered]:
    """Puts every pair to a model. Plan and replies stand in `folder`; a run that was stopped goes on where it was.

    Where the model's turn is begun for it, it may first think again: such answers may be a thought longer.
    Raises StageError where the model stops answering on the way, ModelError where it never answers.
    """
    rows = [case.attempt(pair.attack) for pair in pairs for case in (pair.harmful, pair.harmless)]
    begun = [row for row in rows if row.prefill]
    replies = _replies(folder / "asked", model, [row for row in rows if not row.prefill], max_answer_tokens)
    replies |= _replies(folder / "begun", model, begun, max_answer_tokens + THINK_BUDGET)
    heard = hear([replies[row.id] for row in rows], policy, fmt)
    both = zip(pairs, heard[::2], heard[1::2], strict=True)
    return [Answered(pair=pair, harmful=first, harmless=second) for pair, first, second in both]


def _replies(folder: Path, model: Respondent, rows: Sequence[PlannedAttempt], limit: int) -> dict[str, Judged]:
    if not rows:
        return {}
    attacks = tuple(dict.fromkeys(row.attack for row in rows))
    n_harmful = sum(row.request.harmful is True for row in rows)
    write_plan(folder, rows, PlanSummary(attacks=attacks, harmful=n_harmful, harmless=len(rows) - n_harmful))
    counts = run_suite(folder, model, limit)
    if counts.stopped:
        raise StageError(folder, f"did not finish ({counts.stopped})", "Run the command again: it resumes")
    return {one.attempt.id: one for one in read_replies(folder)}
