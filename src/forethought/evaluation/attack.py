"""Attacks on one model: every attack of a suite in one continuous batch, resumable, judged, reported."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from forethought.attacks.base import Attack, Given
from forethought.attacks.catalogue import DIRECT, seen_in_training, why_not
from forethought.attacks.searches import base as searches
from forethought.attacks.searches.base import Goal, Method, opening_of
from forethought.attacks.searches.driver import Parties, Searching, run_searches
from forethought.attacks.searches.elsewhere import run_searches_on
from forethought.attacks.searches.outcome import SearchProgress, SearchSettings
from forethought.attempts.ask import cost_in_all, make_plan_in_time, run_suite, shrink
from forethought.attempts.plan import PlanSummary, make_plan
from forethought.cluster import connect
from forethought.cluster.holders import Holders, Say
from forethought.errors import ConfigError
from forethought.evaluation.inputs import AttackSettings, Requests, chosen_attacks, chosen_requests, strata
from forethought.evaluation.report import (
    CONTROL,
    SEARCHES,
    AttackRun,
    RunRecord,
    default_folder,
    open_judge,
    read_run,
    report_run,
    write_run,
)
from forethought.evaluation.writers import Meter, Writers
from forethought.judges.base import Judge
from forethought.judges.catalogue import default_judge
from forethought.model import Model, load
from forethought.models.callspec import cost_of
from forethought.models.spread import Spread
from forethought.progress import Progress

if TYPE_CHECKING:
    from forethought.data.behaviors import Behavior

_ALL_THE_TIME = 1e9
_PILOT_FROM = 200
"""Attempts from which the rate is measured first, so that the time can be told."""


def attack(
    model: Model | str | Path,
    settings: AttackSettings | None = None,
    *,
    out: Path | None = None,
    results: Path | None = None,
    show_harmful: bool = False,
    progress: Progress | None = None,
    on: str | None = None,
) -> AttackRun:
    """Attacks a model on harmful and on harmless requests alike; writes a page, figures and logs into `out`.

    Every reply is kept as it comes: the same call goes on where one was stopped. `out` None is `runs/attack-NAME`,
    `results` None a file in it; `show_harmful` leaves texts on the page unredacted. `on` has a Ray cluster ask and
    judge (docs/scale.md); None is where the model was opened. Raises ConfigError, InputError and ModelError for what
    can't be used, before anything is asked.
    """
    settings, progress = settings or AttackSettings(), progress or Progress()
    with connect(on or getattr(model, "on", None)):
        opened = model if isinstance(model, Model) else load(model, on=on)
        if on not in (None, opened.on):
            raise ConfigError(f"on '{on}'", "is not where the model was opened", "Open it there: load(MODEL, on=...)")
        folder = out or default_folder(opened.where, opened.defence)
        try:
            _Attacking(opened, settings, folder, progress).run()
        finally:
            opened.close()  # its room is the judges'
        return report_run(folder, settings, results, show_harmful, progress, on=opened.on)


def rejudge(
    folder: Path,
    settings: AttackSettings | None = None,
    *,
    results: Path | None = None,
    show_harmful: bool = False,
    progress: Progress | None = None,
    on: str | None = None,
) -> AttackRun:
    """Judges the replies of an attack run anew, with the judge that `settings` name, where `on` says. Asks the model
    nothing.

    Raises InputError for a folder without a run.
    """
    settings, progress = settings or AttackSettings(), progress or Progress()
    with connect(on):
        return report_run(folder, settings, results, show_harmful, progress, anew=True, on=on)


@dataclass(frozen=True)
class _Cost:
    """What a run may cost at most, as `Progress.agree` takes it."""

    calls: int
    cost: float | None
    """US dollars; None where the price is unknown."""
    says: str

    def __str__(self) -> str:
        return self.says


class _Attacking:
    """Plans and asks everything that has no reply yet."""

    def __init__(self, model: Model, settings: AttackSettings, folder: Path, progress: Progress) -> None:
        """Raises ConfigError and InputError for settings that can't be used."""
        if settings.control and settings.compare is not None:
            raise ConfigError("control", "is not needed beside compare", "Leave it out: that run is the control")
        if settings.compare is not None:
            read_run(settings.compare)
        self._model, self._settings, self._folder, self._progress = model, settings, folder, progress
        static, self._methods, files = chosen_attacks(settings)
        self._attacks: list[Attack] = list({attack.name: attack for attack in (DIRECT, *static)}.values())
        self._requests: Requests = chosen_requests(settings)
        self._writers = writers = _writers(settings, model, folder, files, progress)
        able = model.respondent.able
        causes = {one.name: why_not(one, writers.there, able.prefill, able.budget, files) for one in self._attacks}
        if model.on is None:
            causes |= _not_run(self._methods, writers)
        elif self._methods:
            causes |= self._workers.one(partial(_told_not_run, settings))
        self._causes = {name: cause for name, cause in causes.items() if cause}
        """By name, why an attack or a search can't be run here."""
        most = settings.goals
        self._goals = min(most, len(self._requests.harmful)), min(most, len(self._requests.harmless))
        """Harmful and harmless requests that each search is run for."""

    @property
    def _workers(self) -> Holders:
        """Those of a cluster who hold the model."""
        assert isinstance(self._model.respondent, Spread)
        return self._model.respondent.workers

    def run(self) -> None:
        """Raises ConfigError where the cost is not agreed to; nothing was asked then."""
        for line in self._requests.said:
            self._say(line, "dim")
        if (known := self._model.settings) is not None:
            texts = (one.request.plain for one in (*self._requests.harmful, *self._requests.harmless))
            if line := known.unlearned(texts):
                self._say(f"{line}. What it does there is not what it was trained for", "yellow")
        run = RunRecord(
            model=" | ".join(part for part in (self._model.where, self._model.defence) if part),
            name=self._model.respondent.name,
            files=self._model.files,
            settings=self._model.settings,
            traffic=self._model.traffic,
            seed=self._settings.seed,
            max_answer_tokens=self._settings.max_answer_tokens,
            suite=self._settings.suite or ("" if self._settings.attacks else "quick"),
            sources=tuple(self._requests.said),
        )
        # A judge that isn't there is told before anything is asked.
        open_judge(self._settings, self._folder, run.settings)
        held = write_run(self._folder, run)
        self._progress.say(self._plan_table(run.seen))
        if not self._agreed():
            raise ConfigError("the run", "was not wanted", "Nothing was asked; agree to its cost to run it")
        run = self._static(run, held)
        if self._methods:
            run = self._search(run)
        write_run(self._folder, run)

    def _say(self, line: str, style: str = "") -> None:
        self._progress.say(f"[{style}]{escape(line)}[/{style}]" if style else escape(line))

    def _plan_table(self, seen: Sequence[str]) -> Table:
        """What will be run on how many requests, and what won't, with the cause."""
        table = Table("attack", "kind", "harmful", "harmless", "", title="Plan", title_justify="left")
        counts = len(self._requests.harmful), len(self._requests.harmless)
        rows: list[tuple[str, str, str, tuple[int, int], str]] = [
            (one.name, one.title, one.kind, counts, "seen in training" if seen_in_training(one, seen) else "")
            for one in self._attacks
        ]
        rows += [(one.name, one.name, "search", self._goals, "") for one in self._methods]
        for name, title, kind, numbers, note in rows:
            cause = self._causes.get(name, "")
            shown = ("-", "-") if cause else tuple(map(str, numbers))
            told = escape(f"not run: {cause}" if cause else note)
            table.add_row(escape(title), kind, *shown, told, style="dim" if cause else None)
        return table

    def _agreed(self) -> bool:
        """Says what the run may cost, and asks where a model is paid for."""
        run = [attack for attack in self._attacks if attack.name not in self._causes]
        methods = [method for method in self._methods if method.name not in self._causes]
        texts = [*self._requests.harmful, *self._requests.harmless]
        queries = sum(self._goals) * self._settings.query_budget
        asked = len(run) * len(texts) + queries * len(methods)
        written = sum(len(texts) for attack in run if "attacker" in attack.needs)
        written += sum(queries for method in methods if "attacker" in method.needs)
        writing_is_paid = self._writers.paid and written > 0
        paid = self._model.paid or (self._model.local is None and self._settings.price is not None)
        if not (paid and asked) and not writing_is_paid:
            return True
        longest = max((len(text.request.text) for text in texts), default=0)
        price = None if writing_is_paid else self._settings.price
        # An attack's text is some hundreds of characters around the request; four characters are about a token.
        tokens_in, tokens_out = asked * (longest + 800) // 4, asked * 2 * self._settings.max_answer_tokens
        cost = cost_of(tokens_in, tokens_out, 0, price)
        known = "unknown price (give the model's)" if cost is None else f"about ${cost:,.2f}"
        says = f"At most {asked:,} questions to the model and {written:,} texts of the attacker: {known}"
        return self._progress.agree(_Cost(asked + written, cost, says))

    def _static(self, run: RunRecord, held: float | None) -> RunRecord:
        """Plans the attacks that don't adapt, within the time where one is given, and asks."""
        settings, folder = self._settings, self._folder
        meter = Meter(self._model.respondent, settings.price)
        summary, says, harmless = self._plan(meter)
        repeated = f", {summary.repeated} repeated left out" if summary.repeated else ""
        self._say(f"{summary.attempts} attempts, {summary.conversations} different conversations{repeated}{says}")
        with self._progress.bar("asking") as bar:
            bar.total(summary.attempts)
            counts = run_suite(folder, meter, settings.max_answer_tokens, meter.telling(bar))
        rate = counts.answered / counts.seconds if counts.answered and counts.seconds else None
        cost = cost_in_all(folder, settings.price)
        spent = "" if cost is None else f", ${cost:.2f} in all"
        speed = f" at {rate:.1f}/s" if rate else ""
        self._say(
            f"{counts.answered} answered{speed}, {counts.reused} from an earlier run, {counts.failed} failed{spent}"
        )
        for cause, count in counts.causes.items():
            self._say(f"  {count}: {cause}", "yellow")
        if counts.stopped:
            self._say(f"Stopped: {counts.stopped}. What was not asked is unscored; the same call goes on", "yellow")
        if settings.control:
            self._writers.run_control(folder / CONTROL, self._attacks, harmless)
        return run.model_copy(update={"says": says.lstrip(", "), "attempts_per_s": rate or held, "cost": cost})

    def _plan(self, meter: Meter) -> tuple[PlanSummary, str, list[Behavior]]:
        """(the plan, what is known of its time, the harmless requests kept)."""
        settings, how = self._settings, self._writers.preparation
        harmful, harmless = self._requests.harmful, self._requests.harmless
        many = len(self._attacks) * (len(harmful) + len(harmless))
        if settings.minutes is None and many < _PILOT_FROM:
            return make_plan(self._folder, self._attacks, harmful, harmless, how), "", harmless
        seconds = _ALL_THE_TIME if settings.minutes is None else 60 * settings.minutes
        by = strata(settings.by, harmless) if harmless else settings.by
        with self._progress.bar("planning") as bar:
            summary, fit = make_plan_in_time(
                self._folder, self._attacks, harmful, harmless, how, meter, seconds, by,
                settings.max_answer_tokens, meter.telling(bar),
            )  # fmt: skip
        kept = shrink(harmless, fit.harmless, settings.seed, by)
        if settings.minutes is None:
            return summary, f", about {_duration(summary.conversations / fit.rate)} at {fit.rate:.1f}/s", kept
        return summary, f", {fit}", kept

    def _search(self, run: RunRecord) -> RunRecord:
        """Runs the searches on some of the requests."""
        settings = self._settings
        rows = [
            row
            for side in (self._requests.harmful, self._requests.harmless)
            for row in shrink(side, settings.goals, settings.seed, strata(settings.by, side))
        ]
        goals = [Goal(request=row.request, target_string=row.reference or opening_of(row.request)) for row in rows]
        with self._progress.bar("searching") as bar:

            def told(state: SearchProgress) -> None:
                bar.show(state.done, state.total, f"{state.queries} queries, {state.broken} got through")

            place = self._folder / SEARCHES
            if self._model.on is not None:
                opened, chosen = partial(_searching, settings, goals), _search_settings(settings)
                found = run_searches_on(self._workers, opened, self._methods, goals, place, chosen, told)
            else:
                judge = open_judge(settings, self._folder, run.settings)
                how = _searching_with(settings, goals, self._model, self._writers, judge, self._methods)
                found = run_searches(self._methods, goals, how.parties, place, how.tools, how.settings, told)
        return run.model_copy(update={"searches_not_run": found.not_run})


def _duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# What attacks and searches are carried out with: in this process, or in a worker of a cluster.


def _writers(
    settings: AttackSettings, model: Model, folder: Path, files: Mapping[str, Path], progress: Progress
) -> Writers:
    """Who writes and rates for attacks on a model; what attacks may use is what that was trained with."""
    known = model.settings
    given = Given(files=files) if known is None else Given(policy=known.policy, format=known.format, files=files)
    return Writers(settings, folder, model, given, progress)


def _not_run(methods: Sequence[Method], writers: Writers) -> dict[str, str]:
    """By name, why a search can't be run; empty where it can."""
    tools = writers.tools()
    return {one.name: searches.why_not(one, tools, writers.there, writers.rates) for one in methods}


def _search_settings(settings: AttackSettings) -> SearchSettings:
    """How an attack run has its searches carried out."""
    return SearchSettings(
        budget=settings.query_budget, seed=settings.seed, max_answer_tokens=settings.max_answer_tokens
    )


def _searching_with(
    settings: AttackSettings,
    goals: Sequence[Goal],
    model: Model,
    writers: Writers,
    judge: Judge,
    methods: Sequence[Method],
) -> Searching:
    """All that searches for these goals are carried out with."""
    parties = Parties(model.respondent, judge, default_judge(), *writers.for_searches())
    return Searching(methods, parties, writers.tools(goals), _search_settings(settings))


_OPENED: dict[str, tuple[Model, Searching]] = {}
"""In a worker, of the model that it holds: what it opens besides is kept for the next search."""


def _searching(settings: AttackSettings, goals: Sequence[Goal], held: Model) -> Searching:
    """As `_searching_with`, in a worker. What a judge and a writer keep of their calls lies in a folder of the
    worker's: searches keep every reply themselves."""
    key = settings.model_dump_json()
    known = _OPENED.get(key)
    if known is not None and known[0] is held:
        return known[1]
    folder = Path(tempfile.mkdtemp(prefix="forethought-searches-"))
    _, methods, files = chosen_attacks(settings)
    writers = _writers(settings, held, folder, files, Progress())
    judge = open_judge(settings, folder, held.settings)
    found = _searching_with(settings, goals, held, writers, judge, methods)
    _OPENED[key] = held, found
    return found


def _told_not_run(settings: AttackSettings, held: Model, _: None, say: Say) -> None:
    """Says by name why searches can't be run against the model that a worker holds."""
    methods, files = chosen_attacks(settings)[1:]
    with tempfile.TemporaryDirectory() as folder:
        say(_not_run(methods, _writers(settings, held, Path(folder), files, Progress())))
