"""What is measured of one defence, in order: attempts, further questions, adaptive attacks, latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forethought.engine.conversation import Respondent
from forethought.engine.local import LocalModel
from forethought.evals.attacks.adaptive.outcome import Outcome
from forethought.evals.suite.records import Judged
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.sweep.cell import QUESTIONS, attack_cell, question_cell
from forethought.pipeline.sweep.config import Sweep
from forethought.pipeline.sweep.latency import LATENCY, latency_cell
from forethought.pipeline.sweep.material import Ground
from forethought.pipeline.sweep.searches import search_cell
from forethought.progress import Progress

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
