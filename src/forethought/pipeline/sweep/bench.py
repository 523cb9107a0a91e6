"""The cells of one base and seed: each defence is made ready and put to the same attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from forethought.defences.opening import OpeningScore
from forethought.engine.conversation import Respondent
from forethought.engine.local import LocalModel
from forethought.engine.settings import read_settings
from forethought.errors import ForethoughtError
from forethought.evals.suite.records import Judged
from forethought.pipeline.operating import recall
from forethought.pipeline.responding import reuse_base, reuse_replies
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.sweep.cell import CALIBRATE, Trained, said_before, train_cell
from forethought.pipeline.sweep.config import MethodEntry, Sweep, method_of, wrapper_label
from forethought.pipeline.sweep.figures import BASE
from forethought.pipeline.sweep.lending import Lending
from forethought.pipeline.sweep.material import Ground, own_harm, slug
from forethought.pipeline.sweep.measuring import Measuring, Open, Openings
from forethought.pipeline.sweep.result import CellResult
from forethought.pipeline.sweep.settling import Place, Settling
from forethought.pipeline.sweep.untrained import PROMPT, Probes, behind, best_prompt, fitted, title_of, unfitted
from forethought.progress import Progress
from forethought.train.methods.base import Material


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
