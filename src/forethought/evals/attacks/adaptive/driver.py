"""Carries out searches side by side, resumable, each within its budget of queries."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from forethought.engine.conversation import Respondent
from forethought.evals.attacks.adaptive.base import Goal, Method, Tools
from forethought.evals.attacks.adaptive.catalogue import why_not
from forethought.evals.attacks.adaptive.journal import Journal, Lines, digest, read_lines
from forethought.evals.attacks.adaptive.live import Live
from forethought.evals.attacks.adaptive.outcome import Outcome, SearchProgress, SearchRun, SearchSettings
from forethought.evals.attacks.adaptive.rounds import Parties, Rounds
from forethought.evals.attacks.adaptive.targets import TextModel
from forethought.evals.judges.base import Judge
from forethought.records import write_jsonl

OUTCOMES_FILE = "outcomes.jsonl"
_REPLIES = "searches"


def run_searches(
    methods: Sequence[Method],
    goals: Sequence[Goal],
    target: Respondent,
    folder: Path,
    judge: Judge,
    tools: Tools | None = None,
    settings: SearchSettings | None = None,
    attacker: TextModel | None = None,
    evaluator: TextModel | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
    harmless_judge: Judge | None = None,
) -> SearchRun:
    """Runs every method for every goal against a target; `targets.text_model` makes writers.

    A run that was stopped goes on where it was: every reply stands in `folder`, which belongs to one target. The
    methods see the target through `tools` as well; `able` is the target's own. `harmless_judge` judges the answers
    to harmless goals, None is `judge`: give one of refusals where `judge` tells harm alone. A universal attack is
    optimised for the goals that are not harmless, where `tools` names no group. Raises ModelError where a
    model never works at all, and what the judge raises for a broken set-up; what was asked before is kept.
    """
    settings, tools = settings or SearchSettings(), tools or Tools(able=target.able)
    if not tools.group:
        tools = replace(tools, group=tuple(goal for goal in goals if goal.request.harmful is not False))
    parties = Parties(target, judge, harmless_judge or judge, attacker, evaluator, settings.max_answer_tokens)
    causes = {method.name: why_not(method, tools, attacker is not None, evaluator is not None) for method in methods}
    for method in methods:
        if method.multi_turn and judge.measure == "refused" and not causes[method.name]:
            causes[method.name] = "needs a judge of harm: a harmless first turn that is answered is no success"
    able = [method for method in methods if not causes[method.name]]
    jobs = [_Job(method, goal, settings, tools, parties) for method in able for goal in goals]
    state = _State({job.key: job for job in jobs}, folder, settings)
    rounds = Rounds(parties)
    try:
        while state.fill(tools):
            for live, replies in zip(state.alive, rounds.answer(state.alive), strict=True):
                if live.ended is None:
                    live.go_on(replies)
            state.settle()
            if on_progress is not None:
                on_progress(state.progress())
    finally:
        state.close()
    outcomes = tuple(state.done[key] for key in state.jobs)
    _write(folder / OUTCOMES_FILE, outcomes)
    not_run = {name: cause for name, cause in causes.items() if cause}
    return SearchRun(outcomes, not_run, rounds.asked, rounds.reused)


def read_outcomes(folder: Path) -> Iterator[Outcome]:
    """The outcomes in a folder, one for each method and goal, the latest; also of a run that was stopped.

    Raises InputError for a damaged file.
    """
    latest = {(one.method, one.goal): one for one in read_lines(folder / OUTCOMES_FILE, Outcome)}
    yield from latest.values()


def _write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """In the order of the run, behind those of other methods and goals: the same run gives the same bytes."""
    mine = {(one.method, one.goal) for one in outcomes}
    others = [one for one in read_outcomes(path.parent) if (one.method, one.goal) not in mine]
    write_jsonl(path, [*others, *outcomes])


class _Job:
    """One method for one goal."""

    def __init__(self, method: Method, goal: Goal, settings: SearchSettings, tools: Tools, parties: Parties) -> None:
        self.method, self.goal = method, goal
        self.budget = settings.budget or method.queries
        options = dict(sorted(method.options.items()))
        self.search = digest(method.name, options, goal.request.id, goal.target_string, settings.seed)
        group = [[one.request.id, one.target_string] for one in tools.group]
        given = [list(tools.templates), group, tools.policy.model_dump(mode="json"), tools.format, tools.thinks]
        about = [goal.request.harmful, goal.request.plain]
        self.key = digest(self.search, about, self.budget, given, parties.names)


class _State:
    """Which searches wait, live and are done."""

    def __init__(self, jobs: dict[str, _Job], folder: Path, settings: SearchSettings) -> None:
        self.jobs, self._folder, self._settings = jobs, folder, settings
        kept = {one.key: one for one in read_lines(folder / OUTCOMES_FILE, Outcome)}
        self.done = {key: kept[key] for key in jobs if key in kept and not self._again(kept[key])}
        self.alive: list[Live] = []
        self._waiting = deque(job for key, job in jobs.items() if key not in self.done)
        self._lines = Lines(folder / OUTCOMES_FILE)

    def fill(self, tools: Tools) -> bool:
        """Starts searches until as many live as may; False where all are done."""
        while self._waiting and len(self.alive) < self._settings.concurrent:
            job = self._waiting.popleft()
            name = job.method.name.partition(":")[0]
            journal = Journal(self._folder / _REPLIES / name / f"{job.search}.jsonl", self._settings.retry_failed)
            live = Live(job.key, job.method, job.goal, job.budget, self._settings.seed, tools, journal)
            self.alive.append(live)
            if live.ended is not None:
                self.settle()
        return bool(self.alive)

    def settle(self) -> None:
        """Records the searches that have ended."""
        for live in self.alive:
            if live.ended is not None:
                outcome = live.outcome()
                self.done[live.key] = outcome
                self._lines.add(outcome)
                live.journal.close()
        self._lines.sync()
        self.alive = [live for live in self.alive if live.ended is None]

    def progress(self) -> SearchProgress:
        """Where the run stands."""
        done = self.done.values()
        return SearchProgress(
            done=len(done),
            total=len(self.jobs),
            alive=len(self.alive),
            queries=sum(one.queries for one in done) + sum(live.queries for live in self.alive),
            broken=sum(one.broken is True for one in done) + sum(live.broken for live in self.alive),
            unscored=sum(one.broken is None for one in done),
        )

    def close(self) -> None:
        """Closes all files; what is in them is kept."""
        for live in self.alive:
            live.journal.close()
        self._lines.close()

    def _again(self, outcome: Outcome) -> bool:
        lost = outcome.failed or outcome.unscored
        return outcome.ended == "error" or (self._settings.retry_failed and bool(lost))
