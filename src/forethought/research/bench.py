"""Weights that several entries of a sweep answer with, and what was heard of them already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from forethought.attempts.records import Judged
from forethought.defences.opening import OpeningScore
from forethought.errors import ConfigError, ForethoughtError
from forethought.models.conversation import Respondent
from forethought.models.local import LocalModel
from forethought.models.machine import machine, release_memory
from forethought.models.settings import read_settings
from forethought.pipeline.fitting import recall
from forethought.pipeline.run import reuse_base, reuse_replies
from forethought.pipeline.stage import StageRunner
from forethought.progress import Progress
from forethought.research.cell import ATTACK, CALIBRATE, Trained, said_before, train_cell
from forethought.research.config import MethodEntry, Sweep, method_of, wrapper_label
from forethought.research.figures import BASE, understood
from forethought.research.kept import Kept, cell_key
from forethought.research.material import Ground, own_harm, slug
from forethought.research.measuring import Measured, Measuring, Open, Openings
from forethought.research.result import CellResult, Made, SweepRun
from forethought.research.untrained import PROMPT, Probes, behind, best_prompt, fitted, title_of, unfitted
from forethought.training.methods.base import Material


class Lending:
    """The trained weights of one base and seed."""

    def __init__(self) -> None:
        self._trained: dict[tuple[str, int], Trained] = {}
        self._said: dict[Path, Sequence[Judged]] = {}

    def trained(self, label: str, budget: int, weights: Trained) -> None:
        """An entry's weights are there."""
        self._trained[label, budget] = weights

    def said(self, adapter: Path, judged: Sequence[Judged]) -> None:
        """What weights said with nothing around them."""
        self._said[adapter] = judged

    def lent(self, entry: MethodEntry, weights_of: str, budget: int) -> Trained | None:
        """The weights that an entry shares; None where it trains its own. `weights_of` is its method's.

        Raises ConfigError where the entry names one that was not trained.
        """
        if entry.weights_of:
            lent = self._trained.get((entry.weights_of, budget))
            if lent is None:
                place = f"method '{entry.label}', weights_of: {entry.weights_of}"
                raise ConfigError(place, "its weights are not here", "See why, or train it: --only does one alone")
            return lent
        return None if entry.trains_otherwise else self._trained.get((weights_of, budget))

    def said_alike(self, shared: Trained | None, adapter: Path) -> Sequence[Judged]:
        """What the lender of an entry's weights said, where the entry by itself would say the same at one threshold."""
        if shared is None or shared.adapter not in self._said:
            return ()
        unlike = {"method": "", "threshold": 0.0, "threshold_note": ""}
        alike = [read_settings(one).model_copy(update=unlike) for one in (shared.adapter, adapter)]
        return self._said[shared.adapter] if alike[0] == alike[1] and alike[0].thinks else ()


# Which cells are to be done here, which are taken from another run, and what is told of those that are missing.


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


# The cells of one base and seed: each defence is made ready and put to the same attempts.


class Bench:
    """Carries out the cells of one base and seed."""

    def __init__(
        self,
        sweep: Sweep,
        grounded: Callable[[dict[str, Any]], Ground],
        progress: Progress,
        settling: Settling,
        base: CellResult | None,
        so_far: bool = False,
    ) -> None:
        """`grounded` prepares the data with some build settings changed; `base` is what another seed had of the base
        model, where it was asked already; with `so_far` only what is done already is told."""
        self._sweep, self._grounded, self._progress, self._settling = sweep, grounded, progress, settling
        self.ground = grounded({})
        self._base = base
        self._lending = Lending()
        self._measuring = Measuring(sweep, self.ground, lambda: self.base, progress, so_far)
        self.probes = Probes(progress)

    @cached_property
    def base(self) -> LocalModel:
        """The base model, loaded where something has to be asked of it."""
        return LocalModel.load(self.ground.base)

    def undefended(self) -> CellResult:
        """The base model, which tells which styles can be read, so that it has to be there."""
        place, stages = Place(self.ground, BASE, "Undefended"), self._stages(BASE)
        if (logged := self._settling.base_from_log(place, stages)) is not None:
            return logged
        openings = Openings(self._scored_base, lambda: self.base, lambda: self.base)
        self._base = place.found(self._measuring.measure(BASE, stages, openings))
        self._settling.done(place, stages, self._base)
        return self._base

    def prompted(self) -> None:
        """The best prompt on development requests."""
        stages = self._stages(PROMPT)

        def work() -> CellResult:
            chosen, told = best_prompt(self._sweep, self.ground, lambda: self.base, stages, self._progress)
            title = f"Best prompt: {title_of(chosen)}"
            note = f"{chosen}, chosen by Youden's J on development requests ({told})"
            return self._around(Place(self.ground, PROMPT, title), chosen, self._scored_base, stages, note)

        self._settling.carry_out(Place(self.ground, PROMPT, "Best prompt"), stages, work)

    def wrapped(self, spec: str) -> None:
        """A wrapper around the base model."""
        name = wrapper_label(spec)
        stages = self._stages(name)
        place = Place(self.ground, name, title_of(spec))

        def work() -> CellResult:
            point = self._sweep.operating_point
            ready = fitted(spec, self.ground, point, lambda: self.base, self.probes, stages, self._progress)
            _depend_on(stages, spec)
            return self._around(place, ready, lambda: self.base, stages, spec if spec != name else "")

        self._settling.carry_out(place, stages, work)

    def trained(self, entry: MethodEntry, budget: int) -> None:
        """A training method at a budget."""
        method, _ = method_of(self._sweep, entry, self.ground.base, self.ground.seed)
        name = entry.label
        title = method.title if name == method.name else f"{method.title}: {name}"
        place = Place(self.ground, name, title, budget)
        if self._settling.settled(place, self._stages(name, budget)):
            return
        try:
            ground = self._grounded(entry.build) if entry.build else self.ground
        except ForethoughtError as error:
            self._settling.missing(place, self._stages(name, budget), error)
            return
        stages = self._stages(name, budget, ground)

        def given(complied: bool) -> Material:
            return ground.material(own_harm(ground, self._progress) if complied else {})

        def work() -> CellResult:
            shared = self._lending.lent(entry, method.weights_of, budget)
            found = train_cell(self._sweep, ground, entry, budget, given, stages, shared, self._progress)
            self._lending.trained(name, budget, found)
            heard = self._lending.said_alike(shared, found.adapter) or (
                () if entry.around else said_before(self._sweep, ground, stages)
            )
            openings = self._openings(entry, found, ground, stages, heard)
            measured = self._measuring.measure(name, stages, openings)
            if not entry.around:
                self._lending.said(found.adapter, measured.judged)
            return replace(place.found(measured), trained=found, note=entry.why)

        self._settling.carry_out(place, stages, work)

    def _openings(
        self, entry: MethodEntry, found: Trained, ground: Ground, stages: StageRunner, heard: Sequence[Judged]
    ) -> Openings:
        """A trained model, and what is around it, which is fitted first; `heard` is what it has said already."""
        # Loaded once, and only where something has to be asked.
        model = cache(lambda: self._recalling(found.adapter, heard, stages))
        ready = ""
        if entry.around:
            fmt, point = read_settings(found.adapter).format, self._sweep.operating_point
            ready = fitted(entry.around, ground, point, model, self.probes, stages, self._progress, fmt)
            _depend_on(stages, entry.around)
        # A model without a thought can leave all answers to the base: what is around it decides by its states.
        read_alone = entry.answer_with == "base" and not found.thinks

        def served() -> Respondent:
            return behind(ready, ground, self.base if read_alone else model(), model()) if ready else model()

        def scored() -> Respondent:
            return served() if ready or found.thinks else OpeningScore(model())

        def timed() -> Respondent:
            model().known_answers.clear()
            model().known_replies.clear()
            return served()

        return Openings(scored, served, model, timed)

    def _recalling(self, adapter: Path, heard: Sequence[Judged], stages: StageRunner) -> LocalModel:
        """The trained model, which knows what the base and these weights have said already."""
        model, tokens = LocalModel.load(self.ground.base, adapter), self._sweep.evaluate.max_answer_tokens
        base = self._base
        by_base = (*base.judged, *base.questions) if base is not None and base.logged is None else ()
        reuse_base(model, by_base, tokens)
        reuse_replies(model, heard, tokens)
        recall(model, stages.folder / CALIBRATE)
        return model

    def _around(self, place: Place, spec: str, inner: Open, stages: StageRunner, note: str) -> CellResult:
        """A defence around the base model; `inner` opens that, scored by its first words where it needs to be."""

        def scored() -> Respondent:
            return behind(spec, self.ground, inner(), self.base)

        def served() -> Respondent:
            return behind(spec, self.ground, self.base, self.base)

        openings = Openings(scored, served, lambda: self.base, served)
        return replace(place.found(self._measuring.measure(place.defence, stages, openings)), note=note)

    def _scored_base(self) -> Respondent:
        return OpeningScore(self.base)

    def _stages(self, name: str, budget: int = 0, ground: Ground | None = None) -> StageRunner:
        folder = self.ground.folder / (f"{name}-b{budget}" if budget else name)

        def say(line: str) -> None:
            self._progress.say(f"{slug(self.ground.base)} s{self.ground.seed} {folder.name} {line}")

        return StageRunner(folder, say, after=(ground or self.ground).key)


def _depend_on(stages: StageRunner, spec: str) -> None:
    """Answers are asked for anew where a defence's options change, or what stands around it."""
    if beside := unfitted(spec):
        stages.depend_on({"around": beside})
