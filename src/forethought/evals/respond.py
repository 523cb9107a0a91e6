"""One defence against one plan of attempts, run and judged through inspect-ai, resumable at the attempt."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval_set
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.model import ChatMessageAssistant as AssistantMessage
from inspect_ai.solver import generate

from forethought.engine.conversation import Response
from forethought.engine.local import LocalModel
from forethought.errors import StageError
from forethought.evals.judges.refusal import UNSCORED, refusal_judge
from forethought.records import Message, Record, Request


class Attempt(Record):
    """A request under an attack, as it is put to every defence."""

    id: str
    """`attack/request id`, unique within a plan."""
    attack: str
    request: Request
    cells: tuple[str, ...]
    """Where it counts in the table; one text can count in two cells."""


class Judged(Record):
    """What one defence said to one attempt, and the judge's finding."""

    attempt: Attempt
    response: Response | None
    """None when the model failed; the attempt is unscored then."""
    refused: bool | None
    """None is unscored."""
    cause: str = ""
    """Why it is unscored."""


def run_defence(
    name: str,
    local: LocalModel,
    attempts: Sequence[Attempt],
    log_dir: Path,
    system: str | None = None,
    max_answer_tokens: int = 32,
    display: Any = "none",
) -> list[Judged]:
    """Puts every attempt to a defence and judges the answers; logs stand in `log_dir` (inspect view).

    A run that was stopped goes on where it was: finished attempts are read from the log.
    Raises StageError when the evaluation can't finish.
    """
    ordered = sorted(attempts, key=lambda attempt: len(attempt.request.text))
    task = Task(
        name=name,
        dataset=MemoryDataset([_sample(attempt, system) for attempt in ordered], name=name),
        solver=generate(),
        scorer=refusal_judge(),
        config=GenerateConfig(max_tokens=max_answer_tokens),
    )
    log_dir.mkdir(parents=True, exist_ok=True)
    logging.getLogger("inspect_ai").setLevel(logging.ERROR)
    _, logs = eval_set(
        task,
        log_dir=str(log_dir),
        model=get_model(f"forethought/{name}", local=local, memoize=False),
        display=display,
        fail_on_error=False,
        max_samples=4096,
        log_buffer=64,
        retry_attempts=1,
        log_level="error",
        # No side servers: one of them would look the model's name up on the hub.
        acp_server=False,
        ctl_server=False,
    )
    log = logs[0]
    if log.status != "success":
        reason = log.error.message if log.error else log.status
        raise StageError(f"evaluation of {name}", f"did not finish ({reason})", "Run the command again: it resumes")
    return read_judged(log, attempts)


def read_judged(log: EvalLog, attempts: Sequence[Attempt]) -> list[Judged]:
    """The judged attempts of a log, in the plan's order. An attempt that the log lacks is unscored."""
    full = log if log.samples is not None else read_eval_log(log.location)
    by_id = {str(sample.id): sample for sample in full.samples or []}
    judged = []
    for attempt in attempts:
        sample = by_id.get(attempt.id)
        if sample is None or sample.error is not None or not (sample.output.metadata or {}).get("response"):
            cause = (
                sample.error.message if sample is not None and sample.error is not None else "no response in the log"
            )
            judged.append(Judged(attempt=attempt, response=None, refused=None, cause=cause))
            continue
        response = Response.model_validate((sample.output.metadata or {})["response"])
        score = (sample.scores or {}).get("refusal_judge")
        value = score.value if score is not None else UNSCORED
        refused = None if value == UNSCORED else value == "refused"
        cause = "" if refused is not None else (score.explanation or "") if score is not None else "the judge failed"
        judged.append(Judged(attempt=attempt, response=response, refused=refused, cause=cause))
    return judged


def _sample(attempt: Attempt, system: str | None) -> Sample:
    turns = attempt.request.messages
    if system:
        turns = (Message(role="system", content=system), *turns)
    return Sample(
        id=attempt.id,
        input=[_chat(turn) for turn in turns],
        metadata={"attack": attempt.attack, "harmful": attempt.request.harmful, "kind": attempt.request.kind},
    )


def _chat(message: Message) -> ChatMessage:
    if message.role == "system":
        return ChatMessageSystem(content=message.content)
    if message.role == "assistant":
        return AssistantMessage(content=message.content)
    return ChatMessageUser(content=message.content)
