"""Adaptive attacks on a defence of a sweep, at the same budget for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from forethought.engine.conversation import Respondent
from forethought.engine.local import LocalModel
from forethought.evals.attacks.adaptive.base import Goal, Tools, opening_of
from forethought.evals.attacks.adaptive.catalogue import parse_method
from forethought.evals.attacks.adaptive.driver import read_outcomes, run_searches
from forethought.evals.attacks.adaptive.outcome import Outcome, SearchProgress, SearchSettings
from forethought.evals.judges.catalogue import default_judge
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.sweep.config import Sweep
from forethought.pipeline.sweep.evaluation import SearchConfig
from forethought.pipeline.sweep.material import Ground
from forethought.progress import Progress

_GCG = "gcg"


def goals_of(search: SearchConfig, ground: Ground) -> list[Goal]:
    """The first harmful test requests of the plan, the same for every defence."""
    direct = [one.request for one in ground.attempts if "direct" in one.cells]
    return [Goal(request, opening_of(request)) for request in direct[: search.goals]]


def search_cell(
    search: SearchConfig,
    name: str,
    sweep: Sweep,
    ground: Ground,
    opened: Callable[[], Respondent],
    read: Callable[[], LocalModel],
    stages: StageRunner,
    progress: Progress,
) -> list[Outcome]:
    """One search a goal. Gradients are taken through the model of `read`: the trained one itself, or for a
    defence around the base model the base, so that its suffixes come from a model without that defence."""
    goals = goals_of(search, ground)
    tokens = sweep.evaluate.max_answer_tokens
    settings = SearchSettings(budget=search.budget, seed=ground.seed, max_answer_tokens=tokens)
    method = parse_method(search.method)

    def work(out: Path) -> dict[str, Any]:
        target, reader = opened(), read()
        thinking = reader.thinking
        tools = Tools(
            able=target.able,
            policy=ground.policy,
            format=thinking.format if thinking is not None else "think",
            thinks=thinking is not None,
            model=reader,
        )

        def told(state: SearchProgress) -> None:
            bar.step(state.done, state.total, {})

        judge = default_judge()
        run = run_searches([method], goals, target, out / "searches", judge, tools, settings, on_progress=told)
        broken = sum(one.broken is True for one in run.outcomes)
        return {"goals": len(run.outcomes), "broken": broken, "unscored": sum(o.broken is None for o in run.outcomes)}

    said = search.model_dump(mode="json", exclude={"defences"})
    if search.name == _GCG:  # as it stands in the file, by which finished stages are known
        said = sweep.evaluate.gcg.model_dump(mode="json", exclude={"defences"})
    config = {search.name: said, "goals": [one.request.id for one in goals]}
    with progress.bar(f"{search.name} {name}") as bar:
        folder = stages.run(ground.stage(search.name), config, work, keep_partial=True)
    return list(read_outcomes(folder / "searches"))
