"""Which cells are to be done here, which are taken from another run, and what is told of those that are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from forethought.engine.machine import machine, release_memory
from forethought.errors import ConfigError, ForethoughtError
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.sweep.cell import ATTACK
from forethought.pipeline.sweep.config import Sweep
from forethought.pipeline.sweep.kept import Kept, cell_key
from forethought.pipeline.sweep.material import Ground
from forethought.pipeline.sweep.measuring import Measured
from forethought.pipeline.sweep.of_text import understood
from forethought.pipeline.sweep.result import CellResult, Made, SweepRun
from forethought.progress import Progress


@dataclass(frozen=True)
class Place:
    """Where a cell stands: a defence on a ground's base and seed, at a budget."""

    ground: Ground
    defence: str
    title: str
    budget: int = 0
    """0 for a defence that is not trained."""

    def found(self, measured: Measured) -> CellResult:
        """What was measured of it."""
        judged, questions, outcomes, latency = measured
        return CellResult(self.defence, self.title, *self.at, judged, questions, outcomes, latency)

    def nothing(self, cause: str) -> CellResult:
        """Why there is nothing."""
        return CellResult(self.defence, self.title, *self.at, missing=cause)

    @property
    def at(self) -> tuple[str, int, int]:
        """(base, seed, budget)."""
        return self.ground.base, self.ground.seed, self.budget


class Settling:
    """Puts the cells of a sweep into its run."""

    def __init__(
        self, sweep: Sweep, run: SweepRun, progress: Progress, so_far: bool = False, kept: Kept | None = None
    ) -> None:
        """With `so_far` nothing more is done; `kept` are cells of another run."""
        self._sweep, self._run, self._progress, self._so_far, self._kept = sweep, run, progress, so_far, kept

    def carry_out(self, place: Place, stages: StageRunner, work: Callable[[], CellResult]) -> None:
        """Does a cell's work, unless it is settled without; where that fails the cell is missing with its reason."""
        if self.settled(place, stages):
            return
        try:
            result = work()
        except ForethoughtError as error:
            self.missing(place, stages, error)
            return
        self.done(place, stages, result)

    def base_from_log(self, place: Place, stages: StageRunner) -> CellResult | None:
        """The base model's cell of another run where nothing is to be asked here; else, and where that log doesn't say
        what the model understands, None. It has no words, so that it is of use for figures alone."""
        if not self._so_far or stages.finished(place.ground.stage(ATTACK)):
            return None
        found, _ = self._logged(place)
        if found is None or understood(found, self._sweep.evaluate.attacks) is None:
            return None
        self._run.add(found)
        return found

    def settled(self, place: Place, stages: StageRunner) -> bool:
        """Whether nothing is to be done for it: it is taken from another run, or what is done so far is told alone, and
        this is not; it is then missing."""
        if stages.finished(place.ground.stage(ATTACK)):
            return False
        found, cause = self._logged(place)
        if found is not None:
            self._run.add(found)
            return True
        if self._so_far:
            self._run.add(place.nothing(cause))
        return self._so_far

    def _logged(self, place: Place) -> tuple[CellResult | None, str]:
        """(the cell of another run, why there is none)."""
        ground = place.ground
        if self._kept is None:
            return None, "not run yet"
        key = cell_key(self._sweep, ground, place.defence, place.budget)
        try:
            found = self._kept.find((place.defence, *place.at), key, ground.attempts, ground.questions)
        except ConfigError as error:
            self._progress.say(f"[yellow]{error}[/yellow]")
            return None, str(error)
        return found, "not run yet"

    def missing(self, place: Place, stages: StageRunner, error: ForethoughtError) -> None:
        """Tells why a cell could not be done."""
        self._progress.say(f"[yellow]{place.defence}: {error}[/yellow]")
        self.done(place, stages, place.nothing(str(error)))

    def done(self, place: Place, stages: StageRunner, result: CellResult) -> None:
        """Adds a cell that was done here."""
        attack = stages.manifest(place.ground.stage(ATTACK))
        key = cell_key(self._sweep, place.ground, place.defence, place.budget)
        made = Made(key, stages.seconds, attack.get("commit"), attack.get("finished", ""), machine())
        self._run.add(replace(result, made=made))
        self._run.peak_gib = max(self._run.peak_gib, stages.peak_gib)
        release_memory()
