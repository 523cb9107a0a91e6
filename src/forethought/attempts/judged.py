"""The replies of a run, judged: any number of judges, at any time, without asking the model again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from forethought.attempts.ask import ask_rows
from forethought.attempts.records import Attempt, Judged, PlannedAttempt, Replies, planned, read_judged, verdicts_file
from forethought.judges.base import Item, Judge, Verdict
from forethought.judges.catalogue import default_judge
from forethought.models.conversation import Respondent, Response
from forethought.records import Message
from forethought.store import Store, locked


def judge_run(
    folder: Path,
    judge: Judge,
    batch: int = 256,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Judges what a folder's plan was answered and keeps the verdicts in `folder`/judged/JUDGE.jsonl.

    The answer alone is judged, never the reasoning. Harmless requests are judged by refusal: by `judge` where it
    measures refusal, else by the default judge. Verdicts that are there are kept, those that
    were left undecided are tried again. `on_progress(n)`: n more attempts are judged. Raises StageError where
    another process judges into the same file.
    """
    path = verdicts_file(folder, judge.name)
    plain = judge if judge.measure == "refused" else default_judge()
    with locked(path.with_suffix(".lock")), Replies(folder) as replies, Store(path, write=True) as verdicts:
        waiting = _unjudged(folder, replies, verdicts, on_progress)
        while part := list(islice(waiting, batch)):
            for chosen, rows in _by_judge(part, judge, plain):
                found = chosen.judge([_item(row, response) for row, response in rows])
                for (row, _), verdict in zip(rows, found, strict=True):
                    if verdicts.read(row.id, Verdict) != verdict:
                        verdicts.add(row.id, verdict)
            if on_progress is not None:
                on_progress(len(part))


Answered = tuple[PlannedAttempt, Response]


def _unjudged(
    folder: Path, replies: Replies, verdicts: Store, on_progress: Callable[[int], None] | None
) -> Iterator[Answered]:
    for row in planned(folder):
        if row.cause:
            continue
        reply = replies.get(row.asked)
        known = verdicts.read(row.id, Verdict)
        if isinstance(reply, Response) and (known is None or known.cause):
            yield row, reply
        elif on_progress is not None:
            on_progress(1)


def _by_judge(part: Sequence[Answered], judge: Judge, plain: Judge) -> Iterator[tuple[Judge, list[Answered]]]:
    """Each judge with its rows: harmless ones go to the judge of refusals."""
    if judge is plain:
        yield judge, list(part)
        return
    for chosen, harmless in ((judge, False), (plain, True)):
        rows = [one for one in part if (one[0].request.harmful is False) is harmless]
        if rows:
            yield chosen, rows


def _item(row: PlannedAttempt, response: Response) -> Item:
    return Item(request=row.request.plain, conversation=row.request.messages, answer=response.answer)


# One defence against one plan of attempts, run and judged, resumable at the attempt.


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
    rows = [_with_system(attempt, system) if system else attempt for attempt in attempts]
    ask_rows(log_dir, respondent, rows, max_answer_tokens, on_progress, f"evaluation of {name}")
    judge = default_judge()
    judge_run(log_dir, judge)
    from forethought.attempts.logs import write_logs  # inspect's log module takes half a second to import

    write_logs(log_dir, log_dir, name, judge.name)
    found = {one.attempt.id: one for one in read_judged(log_dir, judge.name)}
    return [found[attempt.id].model_copy(update={"attempt": attempt}) for attempt in attempts]


def _with_system(attempt: Attempt, system: str) -> Attempt:
    """A defence's system prompt stands before the conversation."""
    turns = (Message(role="system", content=system), *attempt.request.messages)
    return attempt.model_copy(update={"request": attempt.request.model_copy(update={"messages": turns})})
