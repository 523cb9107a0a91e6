"""Lessons from an LLM: asked once a seed, and every cause counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from inspect_ai.model import Model

from forethought.data.lesson import Lesson
from forethought.data.teachers.prompt import TeachTask, call_for, response_schema, system_prompt
from forethought.data.teachers.read import read_lesson
from forethought.data.verify import MAX_REQUEST_CHARACTERS
from forethought.engine.calls import CallSettings, Progress, run_calls
from forethought.engine.pricing import Usage
from forethought.errors import ConfigError
from forethought.policy import Policy


def lessons_from_model(
    tasks: Sequence[TeachTask],
    policy: Policy,
    model: str | Model,
    journal: Path,
    settings: CallSettings,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[dict[str, Lesson], Counter[str], Usage]:
    """(lessons by request id, causes, usage).

    Causes count requests without a lesson (`dropped: ...`), answers that had to be asked for again
    (`rejected: ...`), and lessons that lack something (`variant: ...`, `twin: ...`), apart.
    A request that stands in several tasks must ask for the same each time.

    Raises ModelError when the model can't be used at all; see `run_calls`.
    """
    causes: Counter[str] = Counter()
    askable: dict[str, TeachTask] = {}
    for task in tasks:
        cause = _unaskable(task, policy)
        if cause is not None:
            causes[f"dropped: {cause}"] += 1
        elif askable.setdefault(task.request.id, task) != task:
            raise ConfigError(
                f"request {task.request.id}", "stands in two tasks that differ", "Give each request one task"
            )
    system = system_prompt(policy)
    results = run_calls(
        model,
        [call_for(task, system) for task in askable.values()],
        journal,
        settings,
        lambda key, text: read_lesson(text, askable[key], policy),
        response_schema(policy),
        on_progress,
    )
    causes.update({f"rejected: {cause}": count for cause, count in results.rejected.items()})
    causes.update(Counter(f"dropped: {cause}" for cause in results.dropped.values()))
    lessons: dict[str, Lesson] = {}
    for key, (lesson, missing) in results.values.items():
        lessons[key] = lesson
        causes.update(missing)
    return lessons, causes, results.usage


def _unaskable(task: TeachTask, policy: Policy) -> str | None:
    """Why a call would be wasted."""
    request = task.request
    if request.harmful is None:
        return "the request has no label"
    if len(request.text) > MAX_REQUEST_CHARACTERS:
        return "the request is too long"
    if any(rule not in policy.rule_ids for rule in request.rules):
        return "the request has a rule that the policy does not have"
    return None
