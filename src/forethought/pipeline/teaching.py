"""Asks the teacher of a recipe for lessons: nobody (rules), the dataset itself, or a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.data.demonstrations import choose_demonstrations
from forethought.data.evolve import Operator
from forethought.data.teach import Lesson
from forethought.data.teachers.llm import estimate, lessons_from_model
from forethought.data.teachers.own import lessons_from_dataset
from forethought.data.teachers.prompt import TeachTask
from forethought.engine.asking import open_model
from forethought.engine.callspec import CallSettings, Price, Usage, price_of
from forethought.errors import StageError
from forethought.pipeline.recipe import BuildConfig, TeacherConfig
from forethought.policy import Policy
from forethought.progress import Progress
from forethought.records import Request


@dataclass(frozen=True)
class Teaching:
    """What a teacher that is a model needs besides the recipe."""

    journal: Path
    """Where every answer is kept as soon as it is there; it outlives a stage whose settings changed."""
    progress: Progress
    on_progress: Callable[[Any], None] | None = None
    """Told where the calls stand, as a progress bar's `calls` takes it."""


def teach_seeds(
    draws: Sequence[tuple[Request, str | None]],
    operators: Mapping[str, Operator],
    policy: Policy,
    build: BuildConfig,
    teaching: Teaching,
    tested: Sequence[Request],
    seed: int,
) -> tuple[dict[str, Lesson], Counter[str], Usage]:
    """(lessons by request id, what was lost by cause, what it cost) for the drawn requests and their styles.

    `tested` are evaluation requests: no demonstration near one of them is shown to a model.
    Raises StageError when the cost is declined, ModelError when the model can't be used.
    """
    if build.teacher.name == "rules":
        return {}, Counter(), Usage()
    requests = list({request.id: request for request, _ in draws}.values())
    if build.teacher.name == "own":
        lessons, causes = lessons_from_dataset([request for request in requests if request.harmful], policy)
        return lessons, Counter({f"own reasoning: {cause}": count for cause, count in causes.items()}), Usage()
    tasks = _tasks(requests, draws, _demonstrating(operators, draws, tested, seed, build.demonstration_folder), build)
    settings = call_settings(build.teacher)
    opened = open_model(build.teacher.name, build.teacher.base_url)
    expected = estimate(tasks, policy, settings, price_of(opened, settings.price))
    if not teaching.progress.agree(expected):
        raise StageError("the teacher's cost", "was not agreed to", "Choose another teacher, or --limit the sources")
    return lessons_from_model(tasks, policy, build.teacher.name, teaching.journal, settings, teaching.on_progress)


def call_settings(teacher: TeacherConfig) -> CallSettings:
    """A recipe's teacher as settings of its calls."""
    known = teacher.price_in is not None and teacher.price_out is not None
    return CallSettings(
        base_url=teacher.base_url,
        temperature=teacher.temperature,
        concurrency=teacher.concurrency,
        attempts=teacher.attempts,
        timeout_s=teacher.timeout_s,
        thinking_tokens=teacher.thinking_tokens,
        price=Price(input=teacher.price_in or 0.0, output=teacher.price_out or 0.0) if known else None,
    )


def _demonstrating(
    operators: Mapping[str, Operator],
    draws: Sequence[tuple[Request, str | None]],
    tested: Sequence[Request],
    seed: int,
    folder: Path | None,
) -> dict[str, Operator]:
    """The operators drawn, each with the demonstrations that stand for its pool."""
    drawn = sorted({name for _, name in draws if name is not None})
    return {
        name: operators[name].model_copy(
            update={"demonstrations": choose_demonstrations(operators[name], seed=seed, against=tested, folder=folder)}
        )
        for name in drawn
    }


def _tasks(
    requests: Sequence[Request],
    draws: Sequence[tuple[Request, str | None]],
    operators: Mapping[str, Operator],
    build: BuildConfig,
) -> list[TeachTask]:
    """One task a request: all its styles in one call."""
    styles: dict[str, list[str]] = defaultdict(list)
    for request, name in draws:
        if name is not None and name not in styles[request.id]:
            styles[request.id].append(name)
    paired = {request.twin for request in requests if request.harmful is False and request.twin}
    return [
        TeachTask(
            request=request,
            operators=tuple(operators[name] for name in styles[request.id]),
            twin=bool(request.harmful) and build.twins > 0 and request.twin not in paired,
        )
        for request in requests
    ]
