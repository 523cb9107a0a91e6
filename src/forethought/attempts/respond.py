"""One defence against one plan of attempts, run and judged, resumable at the attempt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forethought.attempts.ask import run_suite
from forethought.attempts.judged import judge_run, read_judged
from forethought.attempts.plan import PlanSummary, write_plan
from forethought.attempts.records import Attempt, Judged, PlannedAttempt
from forethought.errors import StageError
from forethought.judges.catalogue import default_judge
from forethought.models.conversation import Respondent
from forethought.records import Message


def run_defence(
    name: str,
    respondent: Respondent,
    attempts: Sequence[Attempt],
    log_dir: Path,
    system: str | None = None,
    max_answer_tokens: int = 32,
    on_progress: Callable[[int], None] | None = None,
) -> list[Judged]:
    """Puts every attempt to a defence and judges the answers, in the plan's order.

    Plan, replies and verdicts stand in `log_dir`, and logs for `inspect view` beside them. A run that was stopped
    goes on where it was; what failed is asked again by the next run. `on_progress(n)` is told of attempts as they
    finish. Raises StageError when the model stops answering on the way, ModelError when it never answers.
    """
    attacks = tuple(dict.fromkeys(attempt.attack for attempt in attempts))
    n_harmful = sum(attempt.request.harmful is True for attempt in attempts)
    start = PlanSummary(attacks=attacks, harmful=n_harmful, harmless=len(attempts) - n_harmful)
    write_plan(log_dir, (_row(attempt, system) for attempt in attempts), start)
    counts = run_suite(log_dir, respondent, max_answer_tokens, on_progress)
    if counts.stopped:
        raise StageError(
            f"evaluation of {name}", f"did not finish ({counts.stopped})", "Run the command again: it resumes"
        )
    judge = default_judge()
    judge_run(log_dir, judge)
    from forethought.attempts.logs import write_logs  # inspect's log module takes half a second to import

    write_logs(log_dir, log_dir, name, judge.name)
    found = {one.attempt.id: one for one in read_judged(log_dir, judge.name)}
    return [found[attempt.id].model_copy(update={"attempt": attempt}) for attempt in attempts]


def _row(attempt: Attempt, system: str | None) -> PlannedAttempt:
    """A row of the plan; a defence's system prompt stands before the conversation."""
    row = PlannedAttempt.model_validate(attempt.model_dump())
    if not system:
        return row
    turns = (Message(role="system", content=system), *attempt.request.messages)
    return row.model_copy(update={"request": attempt.request.model_copy(update={"messages": turns})})
