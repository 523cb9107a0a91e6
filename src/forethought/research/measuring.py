"""How much longer a defence takes than the undefended model, side by side in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_1samp

from forethought.attacks.searches.base import Goal, Tools, opening_of
from forethought.attacks.searches.catalogue import parse_method
from forethought.attacks.searches.driver import read_outcomes, run_searches
from forethought.attacks.searches.outcome import Outcome, SearchProgress, SearchSettings
from forethought.attempts.records import Judged
from forethought.errors import StageError
from forethought.judges.catalogue import default_judge
from forethought.manifest import write_json
from forethought.metrics import Figure
from forethought.models.conversation import Conversation, Failed, Respondent
from forethought.models.local import LocalModel
from forethought.pipeline.stage import StageRunner
from forethought.progress import Progress
from forethought.research.cell import QUESTIONS, attack_cell, question_cell
from forethought.research.config import LatencyConfig, SearchConfig, Sweep
from forethought.research.material import Ground

LATENCY = "latency"
"""Name of the stage, and of its figure."""


def latency_cell(
    name: str,
    config: LatencyConfig,
    ground: Ground,
    defended: Callable[[], Respondent],
    base: Callable[[], Respondent],
    stages: StageRunner,
    progress: Progress,
) -> list[float]:
    """Times as long as the base model that the defence takes, for each of some ordinary requests, one at a time.

    Both are asked each request right after each other, the first of them in turn: a machine that slows down slows
    both. Raises StageError where one of them has no answer.
    """
    asked = [one.conversation for one in ground.attempts if "ordinary" in one.cells][: config.requests]

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(asked))
        both = (base(), defended())
        for one in both:
            _seconds(one, asked[0], config.max_answer_tokens)  # the first call of all is slow
        ratios = []
        for place, conversation in enumerate(asked):
            order = (0, 1) if place % 2 else (1, 0)
            took = {which: _seconds(both[which], conversation, config.max_answer_tokens) for which in order}
            ratios.append(took[1] / took[0])
            bar.advance(1)
        write_json(out / "ratios.json", ratios)
        return {"requests": len(ratios), "median": round(float(np.median(ratios)), 2)}

    with progress.bar(f"latency {name}") as bar:
        said = {"latency": config.model_dump(mode="json"), "asked": [one.model_dump(mode="json") for one in asked]}
        folder = stages.run(ground.stage(LATENCY), said, work)
    found: list[float] = json.loads((folder / "ratios.json").read_text(encoding="utf-8"))
    return found


def _seconds(model: Respondent, conversation: Conversation, max_tokens: int) -> float:
    start = time.perf_counter()
    (reply,) = model.reply([conversation], max_tokens)
    if isinstance(reply, Failed):
        raise StageError(f"latency of {model.name}", reply.cause, "Leave `latency` out of the sweep")
    return time.perf_counter() - start


def latency_figure(ratios: Sequence[float]) -> Figure:
    """The geometric mean of the ratios, with Student's interval of their logarithms."""
    logs = np.log(ratios)
    low, high = np.exp(ttest_1samp(logs, 0.0).confidence_interval())
    value = float(np.exp(logs.mean()))
    return Figure(name=LATENCY, value=value, low=float(low), high=float(high), n=len(logs), unit="times the base model")


# Adaptive attacks on a defence of a sweep, at the same budget for all.

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


# What is measured of one defence, in order: attempts, further questions, adaptive attacks, latency.

Open = Callable[[], Respondent]


@dataclass(frozen=True)
class Openings:
    """How a defence is opened; each is called only where something has to be asked."""

    scored: Open
    """With a score of every reply, for attacks."""
    served: Open
    """As users would have it."""
    reader: Callable[[], LocalModel]
    """The weights that an attack with gradients reads."""
    timed: Open | None = None
    """As users would have it, with nothing remembered of what was said before; None where it is not timed."""


class Measured(NamedTuple):
    """What was found."""

    judged: Sequence[Judged]
    questions: Sequence[Judged]
    """Further short questions, asked apart from what is judged."""
    outcomes: Mapping[str, Sequence[Outcome]]
    """By adaptive attack."""
    latency: Sequence[float]
    """Times as long as the undefended model that it took, by request."""


class Measuring:
    """Asks the defences of one base and seed; each stage is kept."""

    def __init__(
        self, sweep: Sweep, ground: Ground, base: Callable[[], LocalModel], progress: Progress, so_far: bool
    ) -> None:
        """`base` opens the base model; with `so_far` only what is done already is told."""
        self._sweep, self._ground, self._base, self._progress, self._so_far = sweep, ground, base, progress, so_far

    def measure(self, name: str, stages: StageRunner, openings: Openings) -> Measured:
        """All that the sweep asks of a defence."""
        judged = attack_cell(name, self._sweep, self._ground, openings.scored, stages, self._progress)
        questions = self._questioned(name, stages, openings)
        outcomes = self._searched(name, stages, openings)
        return Measured(judged, questions, outcomes, self._timed(name, stages, openings))

    def _questioned(self, name: str, stages: StageRunner, openings: Openings) -> Sequence[Judged]:
        if not self._ground.questions or self._left(stages, QUESTIONS):
            return ()
        return question_cell(name, self._sweep, self._ground, openings.served, stages, self._progress)

    def _searched(self, name: str, stages: StageRunner, openings: Openings) -> dict[str, Sequence[Outcome]]:
        """With the first seed's weights alone: searches cost the most."""
        if not self._first_seed:
            return {}
        sweep, ground, opened, reader = self._sweep, self._ground, openings.scored, openings.reader
        return {
            search.name: search_cell(search, name, sweep, ground, opened, reader, stages, self._progress)
            for search in sweep.evaluate.all_searches
            if name in search.defences and not self._left(stages, search.name)
        }

    def _timed(self, name: str, stages: StageRunner, openings: Openings) -> Sequence[float]:
        """With the first seed's weights alone."""
        config = self._sweep.evaluate.latency
        if config is None or openings.timed is None or not self._first_seed or self._left(stages, LATENCY):
            return ()
        return latency_cell(name, config, self._ground, openings.timed, self._base, stages, self._progress)

    @property
    def _first_seed(self) -> bool:
        return self._ground.seed == self._sweep.seeds[0]

    def _left(self, stages: StageRunner, stage: str) -> bool:
        """Whether what is done so far is told alone, and this stage is not."""
        return self._so_far and not stages.finished(self._ground.stage(stage))
