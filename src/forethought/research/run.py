"""Runs a sweep, cell by cell: for each base and seed every defence is made ready and put to the same attempts."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from forethought.attempts.records import Judged
from forethought.data.sources import sample
from forethought.defences.base import refuses
from forethought.defences.catalogue import read_step
from forethought.defences.likelihood import OpeningScore
from forethought.errors import ConfigError, ForethoughtError
from forethought.manifest import write_json
from forethought.metrics import share, youden
from forethought.model import write_run_model
from forethought.models.conversation import Conversation, Failed, Respondent
from forethought.models.local import LocalModel
from forethought.models.machine import release_memory
from forethought.models.settings import read_settings
from forethought.pipeline.fitting import (
    FITS,
    Fit,
    Fitting,
    development_rows,
    probe_rows,
    put_around,
    recall,
    with_demand,
)
from forethought.pipeline.run import reuse_base, reuse_replies
from forethought.pipeline.stage import StageRunner
from forethought.policy import load_policy
from forethought.progress import Progress
from forethought.reasoning import Format
from forethought.records import Request
from forethought.report.figures import BASE
from forethought.research.cell import ATTACK, CALIBRATE, LATENCY, QUESTIONS, TRAIN, Cell, CellStages, SweepRun, Trained
from forethought.research.config import PROMPT, MethodEntry, Sweep, method_of, wrapper_label
from forethought.research.figures import understood
from forethought.research.log import Log, cell_key
from forethought.research.setting import Setting, prepare_setting

_FUSED_ON = 240
"""Development rows of a kind that a fusion is fitted on, or as many as the threshold is set on where that is more."""
Opened = Callable[[bool], Respondent]
"""Opens a defence: with a score of every reply, for attacks, or as users would have it."""


def run_cells(
    sweep: Sweep,
    root: Path,
    progress: Progress,
    only: Collection[str] = (),
    so_far: bool = False,
    log: Log | None = None,
) -> SweepRun:
    """Every cell of the sweep, in `root`; with `only`, those of the defences named, and the base's.

    With `so_far`, a defence that was not attacked yet is missing, and nothing is done for it. What was not attacked
    here and stands in the `log` of another run is taken from there. The base model is asked here, since others answer
    with its words, unless `so_far` and `log` say that nothing is to be asked.

    A stage that is done is kept; a defence that can't be trained or asked is missing with its reason, and the others
    go on. All seeds are put to the same requests, so that what is not trained is asked once, with the first seed.
    """
    policy = load_policy(sweep.policy)
    run = SweepRun()
    for base in sweep.bases:
        undefended: Cell | None = None
        for seed in sweep.seeds:

            def prepared(entry: MethodEntry | None, base: str = base, seed: int = seed) -> Setting:
                return prepare_setting(sweep, base, seed, root, policy, progress, entry, rows=not so_far)

            cells = _Cells(sweep, run, progress, so_far, log, prepared, undefended)
            if undefended is None:
                undefended = cells.undefended()
                if sweep.prompts and (not only or PROMPT in only):
                    cells.prompted()
                for spec in sweep.wrappers:
                    if not only or wrapper_label(spec) in only:
                        cells.wrapped(spec)
            for budget in sweep.budgets:
                for entry in sweep.methods:
                    if seed in (entry.seeds or sweep.seeds) and (not only or entry.label in only):
                        cells.trained(sweep.resolved(entry), budget)
    return run


class _Cells:
    """The cells of one base and seed."""

    def __init__(
        self,
        sweep: Sweep,
        run: SweepRun,
        progress: Progress,
        so_far: bool,
        log: Log | None,
        prepared: Callable[[MethodEntry | None], Setting],
        undefended: Cell | None,
    ) -> None:
        """`prepared` gives the data as an entry changes it (None: the sweep's own); `undefended` is what another seed
        had of the base model, where it was asked already."""
        self._sweep, self._run, self._progress, self._so_far, self._log = sweep, run, progress, so_far, log
        self._prepared = prepared
        self._setting = prepared(None)
        self._undefended = undefended
        self._base = cache(lambda: LocalModel.load(self._setting.base))
        """The base model, loaded where something has to be asked of it."""
        self._weights: dict[tuple[str, int], Trained] = {}
        """By entry and budget: others may share them."""
        self._lenders: dict[tuple[str, int], Callable[[], Trained | None]] = {}
        """Likewise, of entries whose answers are another run's: gives the weights where others need them."""
        self._said: dict[Path, Sequence[Judged]] = {}
        """What weights said with nothing around them."""
        self._probes: dict[Path, Path] = {}
        self._trained_probes: dict[tuple[str, int, bool, str], Path] = {}
        """By whose weights a probe reads, at which budget, whether it reads intents, and what else it reads."""
        run.settings.append(self._setting)

    def undefended(self) -> Cell:
        """The base model, which tells which styles can be read, so that it has to be there."""
        cell, stages = self._cell(BASE, "Undefended"), self._stages(BASE)
        if self._so_far and not stages.finished():
            found, _ = self._logged(cell)
            # It has no words, so that it is of use for figures alone.
            if found is not None and understood(found, self._sweep.evaluate.attacks) is not None:
                self._run.add(found)
                return found
        self._undefended = self._measured(cell, stages, self._scored_base, self._base)
        self._done(self._undefended, stages)
        return self._undefended

    def prompted(self) -> None:
        """The best prompt on development requests: chosen before any test."""
        cell, stages = self._cell(PROMPT, "Best prompt"), self._stages(PROMPT)

        def work() -> Cell:
            chosen, told = self._best_prompt(stages)
            note = f"{chosen}, chosen by Youden's J on development requests ({told})"
            named = cell.model_copy(update={"title": f"Best prompt: {title_of(chosen)}", "note": note})
            return self._measured(named, stages, self._opened(chosen, self._scored_base), self._base)

        self._carry_out(cell, stages, work)

    def wrapped(self, spec: str) -> None:
        """A wrapper around the base model."""
        name = wrapper_label(spec)
        cell, stages = self._cell(name, title_of(spec), note=spec if spec != name else ""), self._stages(name)

        def work() -> Cell:
            ready = self._fitted(spec, self._setting, stages, self._base)
            return self._measured(cell, stages, self._opened(ready, lambda scored: self._base()), self._base)

        self._carry_out(cell, stages, work)

    def trained(self, entry: MethodEntry, budget: int) -> None:
        """A training method at a budget."""
        method, _ = method_of(self._sweep, entry, self._setting.base, self._setting.seed)
        name = entry.label
        cell = self._cell(name, method.title if name == method.name else f"{method.title}: {name}", budget)
        stages = self._stages(name, budget)
        if self._settled(cell, stages):
            self._lenders[name, budget] = lambda: self._lent(entry, method.weights_of, budget)
            return
        try:
            rows = self._rows(entry)
        except ForethoughtError as error:
            self._failed(cell, stages, error)
            return
        stages = self._stages(name, budget, rows.key)

        def work() -> Cell:
            shared = self._shared(entry, method.weights_of, budget)
            found = stages.train(rows, entry, shared)
            self._weights[name, budget] = found
            heard = self._said_alike(shared, found.adapter) or (() if entry.around else stages.said_before())
            # Loaded once, and only where something has to be asked.
            model = cache(lambda: self._recalling(found.adapter, heard, stages))
            opened = self._opened_trained(entry, found, rows, stages, model)
            measured = self._measured(cell, stages, opened, model)
            if not entry.around:
                self._said[found.adapter] = measured.judged
            weights = {"tokens": found.tokens, "train_seconds": found.seconds, "thinks": found.thinks}
            return measured.model_copy(update=weights | {"trained": True, "seen": found.seen, "note": entry.why})

        self._carry_out(cell, stages, work, settled=True)

    def _rows(self, entry: MethodEntry) -> Setting:
        """The data of an entry. Raises ConfigError where it would train on what the sweep tests."""
        if not (entry.build or entry.data or entry.fit_on):
            return self._setting
        rows, own = self._prepared(entry), self._setting
        if missing := {one.id for one in own.test} - {one.id for one in rows.test}:
            place = f"method '{entry.label}', data"
            rule = f"{len(missing)} of the requests that the sweep tests are trained on, or near to one that is"
            raise ConfigError(place, rule, "Add other sources, or leave the field out")
        return rows

    # Which cells are done here, and which are taken from another run.

    def _cell(self, defence: str, title: str, budget: int = 0, note: str = "") -> Cell:
        setting = self._setting
        return Cell(defence=defence, title=title, base=setting.base, seed=setting.seed, budget=budget, note=note)

    def _stages(self, name: str, budget: int = 0, after: str = "") -> CellStages:
        return CellStages(self._sweep, self._setting, name, self._progress, budget, after)

    def _carry_out(self, cell: Cell, stages: CellStages, work: Callable[[], Cell], settled: bool = False) -> None:
        """Does a cell's work, unless it is settled without; where that fails the cell is missing with its reason.

        `settled` says that it was looked at already.
        """
        if settled or not self._settled(cell, stages):
            try:
                self._done(work(), stages)
            except ForethoughtError as error:
                self._failed(cell, stages, error)

    def _settled(self, cell: Cell, stages: CellStages) -> bool:
        """Whether nothing is to be done for it: it is taken from another run, or what is done so far is told alone, and
        this is not; it is then missing."""
        if stages.finished():
            return False
        found, cause = self._logged(cell)
        if found is not None and (self._so_far or not self._to_search(found)):
            self._run.add(found)
            return True
        if self._so_far:
            self._run.add(cell.model_copy(update={"missing": cause}))
        return self._so_far

    def _to_search(self, found: Cell) -> bool:
        """Whether a cell of a run that was told half-way has adaptive attacks before it still."""
        searches = self._sweep.evaluate.all_searches if found.seed == self._sweep.seeds[0] else ()
        return not {one.name for one in searches if found.defence in one.defences} <= found.outcomes.keys()

    def _logged(self, cell: Cell) -> tuple[Cell | None, str]:
        """(the cell of another run, why there is none)."""
        if self._log is None:
            return None, "not run yet"
        try:
            return self._log.find(cell.place, self._key(cell), self._setting), "not run yet"
        except ConfigError as error:
            self._progress.say(f"[yellow]{error}[/yellow]")
            return None, str(error)

    def _failed(self, cell: Cell, stages: CellStages, error: ForethoughtError) -> None:
        self._progress.say(f"[yellow]{cell.defence}: {error}[/yellow]")
        self._done(cell.model_copy(update={"missing": str(error)}), stages)

    def _done(self, cell: Cell, stages: CellStages) -> None:
        """Adds a cell that was done here."""
        self._run.add(cell.model_copy(update={"key": self._key(cell), **stages.cost()}))
        self._run.peak_gib = max(self._run.peak_gib, stages.runner.peak_gib)
        release_memory()

    def _key(self, cell: Cell) -> str:
        return cell_key(self._sweep, self._setting, cell.defence, cell.budget)

    # How a defence is opened, and what is measured of it.

    def _measured(self, cell: Cell, stages: CellStages, opened: Opened, weights: Callable[[], LocalModel]) -> Cell:
        """All that the sweep asks of a defence: attempts, further questions, adaptive attacks, latency.

        `weights` opens the model that an attack with gradients reads.
        """
        setting, evaluate = self._setting, self._sweep.evaluate

        def left(stage: str) -> bool:
            """Whether what is done so far is told alone, and this stage is not."""
            return self._so_far and not stages.finished(stage)

        def scored() -> Respondent:
            return opened(True)

        def timed() -> Respondent:
            """With nothing remembered of what was said before."""
            weights().known_answers.clear()
            weights().known_replies.clear()
            return opened(False)

        found: dict[str, Any] = {"judged": stages.ask(setting.stage(ATTACK), setting.attempts, scored)}
        if setting.questions and not left(QUESTIONS):
            # A stage of its own, so that the attack keeps its answers.
            found["questions"] = stages.ask(QUESTIONS, setting.questions, lambda: opened(False))
        if setting.seed == self._sweep.seeds[0]:  # searches cost the most
            found["outcomes"] = {
                search.name: stages.search(search, scored, weights)
                for search in evaluate.all_searches
                if cell.defence in search.defences and not left(search.name)
            }
            if evaluate.latency is not None and cell.defence != BASE and not left(LATENCY):
                found["latency"] = stages.latency(timed, self._base)
        return cell.model_copy(update=found)

    def _scored_base(self, scored: bool) -> Respondent:
        return OpeningScore(self._base()) if scored else self._base()

    def _opened(
        self, spec: str, inner: Opened, rows: Setting | None = None, weights: Callable[[], LocalModel] | None = None
    ) -> Opened:
        """`inner` behind the defences of a spec, which read `weights` (None: the base's) and the development rows of a
        setting (None: this one)."""
        rows, weights = rows or self._setting, weights or self._base
        return lambda scored: put_around(spec, inner(scored), weights(), rows.dev, rows.policy)

    def _opened_trained(
        self, entry: MethodEntry, found: Trained, rows: Setting, stages: CellStages, model: Callable[[], LocalModel]
    ) -> Opened:
        """A trained model, and what is around it, which is fitted first."""
        ready = ""
        if entry.around:
            ready = self._fitted(entry.around, rows, stages, model, read_settings(found.adapter).format, entry)
        write_run_model(stages.folder, rows.base, found.adapter, ready)
        if ready:
            # A model without a thought can leave all answers to the base: what is around it decides by its states.
            read_alone = entry.answer_with == "base" and not found.thinks
            return self._opened(ready, lambda scored: self._base() if read_alone else model(), rows, model)
        return lambda scored: OpeningScore(model()) if scored and not found.thinks else model()

    def _recalling(self, adapter: Path, heard: Sequence[Judged], stages: CellStages) -> LocalModel:
        """The trained model, which knows what the base and these weights have said already."""
        model, tokens = LocalModel.load(self._setting.base, adapter), self._sweep.evaluate.max_answer_tokens
        base = self._undefended
        if base is not None and not base.logged:
            reuse_base(model, (*base.judged, *base.questions), tokens)
        reuse_replies(model, heard, tokens)
        recall(model, stages.folder / CALIBRATE)
        return model

    # Weights that several entries answer with.

    def _shared(self, entry: MethodEntry, weights_of: str, budget: int) -> Trained | None:
        """The weights that an entry shares; None where it trains its own. `weights_of` is its method's: those are
        shared where neither entry trains otherwise.

        Raises ConfigError where the entry names one that was not trained.
        """
        if entry.weights_of:
            owner = (entry.weights_of, budget)
            shared = self._weights.get(owner) or (self._lenders[owner]() if owner in self._lenders else None)
            if shared is None:
                place = f"method '{entry.label}', weights_of: {entry.weights_of}"
                raise ConfigError(place, "its weights are not here", "See why, or train it: --only does one alone")
            return shared
        if entry.trains_otherwise or not self._sweep.trains_plainly(weights_of):
            return None
        return self._weights.get((weights_of, budget))

    def _lent(self, entry: MethodEntry, weights_of: str, budget: int) -> Trained | None:
        """Weights whose own answers are another run's; trained here, unless what is done so far is told alone."""
        rows = self._rows(entry)
        stages = self._stages(entry.label, budget, rows.key)
        if self._so_far and not stages.runner.finished(TRAIN):
            return None
        found = stages.train(rows, entry, self._shared(entry, weights_of, budget))
        self._weights[entry.label, budget] = found
        return found

    def _said_alike(self, shared: Trained | None, adapter: Path) -> Sequence[Judged]:
        """What shared weights said already, where the entry by itself would say the same at one threshold."""
        if shared is None or shared.adapter not in self._said:
            return ()
        unlike = {"method": "", "threshold": 0.0, "threshold_note": ""}
        alike = [read_settings(one).model_copy(update=unlike) for one in (shared.adapter, adapter)]
        return self._said[shared.adapter] if alike[0] == alike[1] and alike[0].thinks else ()

    # What is chosen and fitted before a defence is asked.

    def _best_prompt(self, stages: CellStages) -> tuple[str, str]:
        """(the prompt with the highest Youden's J on development requests, what each had)."""
        prompts, evaluate, setting = self._sweep.prompts, self._sweep.evaluate, self._setting
        plain, n = [row for row in setting.dev if row.operator is None], evaluate.n_prompt_choice
        # As many harmless ones as harmful, half of them look-alikes.
        kinds = (("harmful", n), ("ordinary", n - n // 2), ("lookalike", n // 2))
        rows = [row for kind, most in kinds for row in sample([r for r in plain if r.kind == kind], most, setting.seed)]

        def work(out: Path) -> dict[str, Any]:
            bar.total(len(prompts) * len(rows))
            found = {}
            for prompt in prompts:
                defended = self._opened(prompt, lambda scored: self._base())(False)
                found[prompt] = _youden(defended, rows, evaluate.max_answer_tokens, bar.advance)
            write_json(out / "prompts.json", found)
            return found

        with self._progress.bar("choose a prompt") as bar:
            folder = stages.runner.run("choose", {"prompts": prompts, "rows": [row.id for row in rows]}, work)
        found = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
        told = ", ".join(f"{name} {value:.2f}" for name, value in sorted(found.items(), key=lambda one: -one[1]))
        return max(prompts, key=lambda name: (found[name], -prompts.index(name))), told

    def _fitted(
        self,
        spec: str,
        rows: Setting,
        stages: CellStages,
        model: Callable[[], LocalModel],
        fmt: Format = "think",
        entry: MethodEntry | None = None,
    ) -> str:
        """The spec; where its first defence needs fitting and has no folder yet, that is fitted on a setting's rows.

        It is the nearest to the model: what stands behind a `|` goes around it as it is. `model` is the defended one:
        probes read its base weights, or where they are to its trained ones; a fusion its verdicts. `fmt` is how it
        writes thoughts, `entry` the method that it is around; None for the base model.
        """
        first, bar, further = (part.strip() for part in spec.partition("|"))
        ready, fit, entry = first, FITS.get(first), entry or MethodEntry()
        placed = further
        if fit is not None:
            fitting = self._fitting(rows, model, stages.runner)
            if sources := self._sweep.fitted_on(entry):
                stages.runner.depend_on(sources)

            def probe() -> Path:
                if not fit.trained:
                    return self._probe(rows, model, fit, entry)
                fitted_on = _fitted_on(fit, rows)  # of these weights alone: it lies with them
                alike = (entry.weights_of or entry.label, stages.budget, fit.intents, entry.reads_besides)
                found = fitting.probe("probe", fitted_on, trained=True, fitted=self._trained_probes.get(alike))
                return self._trained_probes.setdefault(alike, found)

            if fit.defence == "fused":
                lent = cache(probe)
                if fit.trained:
                    lent()  # a stage before the fusion's
                dev = development_rows(rows.dev, self._sweep.operating_point, _FUSED_ON)
                folder = fitting.fusion("fuse", fit, lent, dev)
                placed = with_demand(further, lambda: fitting.demand("demand", fit, lent, dev))
            else:
                folder = probe()
            ready = f"{fit.defence}:{folder}" + ("" if fit.defence == "probe" else f",format={fmt}")
        if beside := unfitted(spec):  # answers are asked for anew where a defence's options change
            stages.runner.depend_on({"around": beside})
        return f"{ready} | {placed}" if bar else ready

    def _probe(self, rows: Setting, model: Callable[[], LocalModel], fit: Fit, entry: MethodEntry) -> Path:
        """Where the setting's probe lies, one for all defences that read it: of requests, or of requests and their
        intents, and of what entries add. `model` holds the base weights."""
        added = f"-{entry.reads_besides}" if entry.fit_on else ""
        place = rows.folder / f"probe-{rows.key[:8]}{'-intents' if fit.intents else ''}{added}"
        if place not in self._probes:
            stages = StageRunner(place, self._progress.say, after=rows.key)
            if sources := self._sweep.fitted_on(entry):
                stages.depend_on(sources)
            self._probes[place] = self._fitting(rows, model, stages).probe("fit", _fitted_on(fit, rows))
            self._run.seconds += stages.seconds
        return self._probes[place]

    def _fitting(self, rows: Setting, model: Callable[[], LocalModel], stages: StageRunner) -> Fitting:
        point = self._sweep.operating_point
        return Fitting(model, rows.train, rows.dev, rows.policy, point, stages, self._progress)


def _youden(model: Respondent, rows: Sequence[Request], max_tokens: int, on_done: Callable[[int], None]) -> float:
    asked = [Conversation(messages=row.messages) for row in rows]
    replies = model.reply(asked, max_tokens, lambda place, reply: on_done(1))
    outcomes = [None if isinstance(reply, Failed) else refuses(reply) for reply in replies]
    sides = [[o for o, row in zip(outcomes, rows, strict=True) if bool(row.harmful) is side] for side in (True, False)]
    if not all(share(side).n for side in sides):
        return -1.0  # nothing scored: never the best
    ids = [[row.id for row in rows if bool(row.harmful) is side] for side in (True, False)]
    return youden([sides[0]], [ids[0]], [sides[1]], [ids[1]]).value


def title_of(spec: str) -> str:
    """What tables and plots call the defences of a spec together."""
    first, *further = [step.strip() for step in spec.split("|")]
    found = FITS[first].title if first in FITS else read_step(first)[0].title
    return ", ".join([found, *(read_step(step)[0].title for step in further)])


def _fitted_on(fit: Fit, rows: Setting) -> list[Request]:
    return [*probe_rows(fit, rows.train, rows.examples), *rows.fit_on]


def unfitted(spec: str) -> str:
    """What of a spec no stage stands for: all but a first defence that is fitted here. Answers depend on it."""
    first, _, further = spec.partition("|")
    return further.strip() if first.strip() in FITS else spec.strip()
