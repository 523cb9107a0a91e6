"""The cells of one base and seed: each defence is made ready and put to the same attempts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from forethought.defences.catalogue import DEFENCES
from forethought.defences.opening import OpeningScore
from forethought.engine.conversation import Respondent
from forethought.engine.local import LocalModel
from forethought.engine.machine import machine, release_memory
from forethought.engine.settings import read_settings
from forethought.errors import ConfigError, ForethoughtError
from forethought.evals.attacks.adaptive.outcome import Outcome
from forethought.evals.suite.records import Judged
from forethought.pipeline.operating import recall
from forethought.pipeline.responding import reuse_base, reuse_replies
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.sweep.around import PROMPT, Probes, behind, best_prompt, fitted, unfitted
from forethought.pipeline.sweep.cell import (
    ATTACK,
    CALIBRATE,
    QUESTIONS,
    attack_cell,
    question_cell,
    said_before,
    train_cell,
)
from forethought.pipeline.sweep.config import MethodEntry, Sweep, method_of, wrapper_label
from forethought.pipeline.sweep.figures import BASE
from forethought.pipeline.sweep.kept import Kept, cell_key
from forethought.pipeline.sweep.latency import LATENCY, latency_cell
from forethought.pipeline.sweep.material import Ground, own_harm, slug
from forethought.pipeline.sweep.result import CellResult, Made, SweepRun
from forethought.pipeline.sweep.searches import search_cell
from forethought.pipeline.terminal import Terminal
from forethought.train.methods.base import Material


class Bench:
    """Carries out the cells of one base and seed."""

    def __init__(
        self,
        sweep: Sweep,
        grounded: Callable[[dict[str, Any]], Ground],
        terminal: Terminal,
        run: SweepRun,
        base: CellResult | None,
        so_far: bool = False,
        kept: Kept | None = None,
    ) -> None:
        """`grounded` prepares the data with some build settings changed; `base` is what another seed had of the base
        model, where it was asked already; `kept` are cells of another run."""
        self._so_far, self._kept = so_far, kept
        self._sweep, self._terminal, self._run = sweep, terminal, run
        self._grounded = grounded
        self.ground = grounded({})
        self._base = base
        self._adapters: dict[tuple[str, int], Path] = {}
        self._said: dict[Path, Sequence[Judged]] = {}
        """What trained weights said with nothing around them, by their folder."""
        self.probes = Probes(terminal)

    @cached_property
    def base(self) -> LocalModel:
        """The base model, loaded where something has to be asked of it."""
        return LocalModel.load(self.ground.base)

    def undefended(self) -> CellResult:
        """The base model; its answers also tell which styles it can read, so that it has to be there."""
        stages = self._stages(BASE)
        judged = attack_cell(BASE, self._sweep, self.ground, self._scored_base, stages, self._terminal)
        questions = self._questioned(BASE, stages, lambda: self.base)
        outcomes = self._searched(BASE, stages, self._scored_base, lambda: self.base)
        self._base = CellResult(BASE, "Undefended", *self._place(0), judged, questions, outcomes)
        self._done(stages, self._base)
        return self._base

    def prompted(self) -> None:
        """The best prompt on development requests."""
        stages = self._stages(PROMPT)

        def work() -> CellResult:
            chosen, told = best_prompt(self._sweep, self.ground, lambda: self.base, stages, self._terminal)
            note = f"{chosen}, chosen by Youden's J on development requests ({told})"
            title = f"Best prompt: {DEFENCES[chosen].defence.title}"

            def around(inner: Respondent) -> Respondent:
                return behind(chosen, self.ground, inner, self.base)

            return self._around(PROMPT, title, around, self._scored_base, stages, note)

        self._guarded(PROMPT, "Best prompt", 0, stages, work)

    def wrapped(self, spec: str) -> None:
        """A wrapper around the base model."""
        name = wrapper_label(spec)
        stages = self._stages(name)
        title = ", ".join(DEFENCES[wrapper_label(step)].defence.title for step in spec.split("|"))

        def work() -> CellResult:
            point = self._sweep.operating_point
            ready = fitted(spec, self.ground, point, lambda: self.base, self.probes, stages, self._terminal)
            _depend_on(stages, spec)

            def around(inner: Respondent) -> Respondent:
                return behind(ready, self.ground, inner, self.base)

            return self._around(name, title, around, lambda: self.base, stages, spec if spec != name else "")

        self._guarded(name, title, 0, stages, work)

    def trained(self, entry: MethodEntry, budget: int) -> None:
        """A training method at a budget."""
        method, _ = method_of(self._sweep, entry, self.ground.base, self.ground.seed)
        name = entry.label
        title = method.title if name == method.name else f"{method.title}: {name}"
        if self._settled(self._stages(name, budget), name, title, budget):
            return
        try:
            ground = self._grounded(entry.build) if entry.build else self.ground
        except ForethoughtError as error:
            self._missing(self._stages(name, budget), name, title, budget, error)
            return
        stages = self._stages(name, budget, ground)

        def given(complied: bool) -> Material:
            return ground.material(own_harm(ground, self._terminal) if complied else {})

        def work() -> CellResult:
            shared = self._lent(entry, method.weights_of, budget)
            found = train_cell(self._sweep, ground, entry, budget, given, stages, shared, self._terminal)
            self._adapters[name, budget] = found.adapter
            heard = self._said_alike(shared, found.adapter) or (
                () if entry.around else said_before(self._sweep, ground, stages)
            )
            # Loaded once, and only where something has to be asked.
            model = cache(lambda: self._recalling(found.adapter, heard, stages))
            ready = ""
            if entry.around:
                fmt, point = read_settings(found.adapter).format, self._sweep.operating_point
                ready = fitted(entry.around, ground, point, model, self.probes, stages, self._terminal, fmt)
                _depend_on(stages, entry.around)

            # A model without a thought can leave all answers to the base: what is around it decides by its states.
            read_alone = entry.answer_with == "base" and not found.thinks

            def served() -> Respondent:
                return behind(ready, ground, self.base if read_alone else model(), model()) if ready else model()

            def opened() -> Respondent:
                return served() if ready or found.thinks else OpeningScore(model())

            judged = attack_cell(name, self._sweep, self.ground, opened, stages, self._terminal)
            if not ready:
                self._said[found.adapter] = judged
            questions = self._questioned(name, stages, served)
            outcomes = self._searched(name, stages, opened, model)

            def asked_anew() -> Respondent:
                model().known_answers.clear()
                model().known_replies.clear()
                return served()

            timed = self._timed(name, stages, asked_anew)
            return CellResult(name, title, *self._place(budget), judged, questions, outcomes, timed, found, entry.why)

        self._guarded(name, title, budget, stages, work)

    def _recalling(self, adapter: Path, heard: Sequence[Judged], stages: StageRunner) -> LocalModel:
        """The trained model, which knows what the base and these weights have said already."""
        model, tokens = LocalModel.load(self.ground.base, adapter), self._sweep.evaluate.max_answer_tokens
        reuse_base(model, self._said_by_base(), tokens)
        reuse_replies(model, heard, tokens)
        recall(model, stages.folder / CALIBRATE)
        return model

    def _lent(self, entry: MethodEntry, weights_of: str, budget: int) -> Path | None:
        """The folder of the weights that an entry shares; None where it trains its own.

        Raises ConfigError where the entry names one that was not trained.
        """
        if entry.weights_of:
            lent = self._adapters.get((entry.weights_of, budget))
            if lent is None:
                place = f"method '{entry.label}', weights_of: {entry.weights_of}"
                raise ConfigError(place, "its weights are not here", "See why, or train it: --only does one alone")
            return lent
        changed = entry.build or entry.train or entry.objective or entry.procedure
        return None if changed else self._adapters.get((weights_of, budget))

    def _said_alike(self, shared: Path | None, adapter: Path) -> Sequence[Judged]:
        """What the lender of an entry's weights said, where the entry by itself would say the same at one threshold."""
        if shared is None or shared not in self._said:
            return ()
        unlike = {"method": "", "threshold": 0.0, "threshold_note": ""}
        alike = [read_settings(one).model_copy(update=unlike) for one in (shared, adapter)]
        return self._said[shared] if alike[0] == alike[1] and alike[0].thinks else ()

    def _around(
        self, name: str, title: str, around: Callable[[Respondent], Respondent], inner: Callable[[], Respondent],
        stages: StageRunner, note: str,
    ) -> CellResult:  # fmt: skip
        """A defence around the base model; `inner` opens that, scored by its first words where it needs to be."""

        def opened() -> Respondent:
            return around(inner())

        judged = attack_cell(name, self._sweep, self.ground, opened, stages, self._terminal)
        questions = self._questioned(name, stages, lambda: around(self.base))
        outcomes = self._searched(name, stages, opened, lambda: self.base)
        timed = self._timed(name, stages, lambda: around(self.base))
        return CellResult(name, title, *self._place(0), judged, questions, outcomes, timed, note=note)

    def _said_by_base(self) -> Sequence[Judged]:
        return (*self._base.judged, *self._base.questions) if self._base is not None else ()

    def _questioned(self, name: str, stages: StageRunner, opened: Callable[[], Respondent]) -> Sequence[Judged]:
        """Further short questions, where the sweep asks them."""
        if not self.ground.questions or self._left(stages, QUESTIONS):
            return ()
        return question_cell(name, self._sweep, self.ground, opened, stages, self._terminal)

    def _timed(self, name: str, stages: StageRunner, defended: Callable[[], Respondent]) -> Sequence[float]:
        """Latency beside the base model, where the sweep asks for it; with the first seed's weights alone."""
        config = self._sweep.evaluate.latency
        if config is None or self.ground.seed != self._sweep.seeds[0] or self._left(stages, LATENCY):
            return ()
        return latency_cell(name, config, self.ground, defended, lambda: self.base, stages, self._terminal)

    def _searched(
        self, name: str, stages: StageRunner, opened: Callable[[], Respondent], reader: Callable[[], LocalModel]
    ) -> dict[str, Sequence[Outcome]]:
        """Outcomes of the adaptive attacks on a defence, with the first seed's weights alone: they cost the most."""
        if self.ground.seed != self._sweep.seeds[0]:
            return {}
        return {
            search.name: search_cell(search, name, self._sweep, self.ground, opened, reader, stages, self._terminal)
            for search in self._sweep.evaluate.all_searches
            if name in search.defences and not self._left(stages, search.name)
        }

    def _left(self, stages: StageRunner, stage: str) -> bool:
        """Whether what is done so far is told alone, and this stage is not."""
        return self._so_far and not stages.finished(self.ground.stage(stage))

    def _guarded(self, name: str, title: str, budget: int, stages: StageRunner, work: Callable[[], CellResult]) -> None:
        if self._settled(stages, name, title, budget):
            return
        try:
            result = work()
        except ForethoughtError as error:
            self._missing(stages, name, title, budget, error)
            return
        self._done(stages, result)

    def _settled(self, stages: StageRunner, name: str, title: str, budget: int) -> bool:
        """Whether nothing is to be done for it: it is taken from another run, or what is done so far is told alone, and
        this is not; it is then missing."""
        if stages.finished(self.ground.stage(ATTACK)):
            return False
        cause = "not run yet"
        if self._kept is not None:
            key, ground = cell_key(self._sweep, self.ground, name, budget), self.ground
            try:
                found = self._kept.find((name, *self._place(budget)), key, ground.attempts, ground.questions)
            except ConfigError as error:
                found, cause = None, str(error)
                self._terminal.say(f"[yellow]{error}[/yellow]")
            if found is not None:
                self._run.add(found)
                return True
        if self._so_far:
            self._run.add(CellResult(name, title, *self._place(budget), missing=cause))
        return self._so_far

    def _missing(self, stages: StageRunner, name: str, title: str, budget: int, error: ForethoughtError) -> None:
        self._terminal.say(f"[yellow]{name}: {error}[/yellow]")
        self._done(stages, CellResult(name, title, *self._place(budget), missing=str(error)))

    def _done(self, stages: StageRunner, result: CellResult) -> None:
        attack = stages.manifest(self.ground.stage(ATTACK))
        key = cell_key(self._sweep, self.ground, result.defence, result.budget)
        made = Made(key, stages.seconds, attack.get("commit"), attack.get("finished", ""), machine())
        self._run.add(replace(result, made=made))
        self._run.peak_gib = max(self._run.peak_gib, stages.peak_gib)
        release_memory()

    def _scored_base(self) -> Respondent:
        return OpeningScore(self.base)

    def _place(self, budget: int) -> tuple[str, int, int]:
        return self.ground.base, self.ground.seed, budget

    def _stages(self, name: str, budget: int = 0, ground: Ground | None = None) -> StageRunner:
        folder = self.ground.folder / (f"{name}-b{budget}" if budget else name)

        def say(line: str) -> None:
            self._terminal.say(f"{slug(self.ground.base)} s{self.ground.seed} {folder.name} {line}")

        return StageRunner(folder, say, after=(ground or self.ground).key)


def _depend_on(stages: StageRunner, spec: str) -> None:
    """Answers are asked for anew where a defence's options change, or what stands around it."""
    if beside := unfitted(spec):
        stages.depend_on({"around": beside})
