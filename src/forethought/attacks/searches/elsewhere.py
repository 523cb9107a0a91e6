"""Searches on a cluster: each is a worker's, from its first question to its last, and its replies are kept here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from forethought.attacks.searches.base import Goal, Method, Tools
from forethought.attacks.searches.driver import Rounds, Searching, State
from forethought.attacks.searches.outcome import (
    Outcome,
    RunningSearch,
    SearchProgress,
    SearchRun,
    SearchSettings,
    StoredReply,
)
from forethought.cluster.holders import Done, Holders, Lost, Say
from forethought.store import Store


def run_searches_on(
    holders: Holders,
    opened: Callable[[Any], Searching],
    methods: Sequence[Method],
    goals: Sequence[Goal],
    folder: Path,
    settings: SearchSettings,
    on_progress: Callable[[SearchProgress], None] | None = None,
) -> SearchRun:
    """As `run_searches`, by workers of a cluster; `opened` makes of what one holds all that it searches with.

    Outcomes are those of one process but for the last digits of log-odds: a search's questions are decoded beside
    nobody else's. A search whose worker is lost goes on in another; one that is lost every time is unscored.
    """
    about = partial(_about, opened, goals, settings.max_answer_tokens)
    not_run, names, tools = holders.one(about)
    with _There(folder, settings, tools) as state:
        state.add_all(methods, goals, not_run, names)
        for job, said in holders.each(partial(_carry_out, opened, goals), state.jobs(), state.left):
            if isinstance(said, Lost):
                state.lose(job, said.cause)
            elif not isinstance(said, Done):
                state.hear(job, said)
                if on_progress is not None:
                    on_progress(state.progress())
    return state.run(not_run)


@dataclass(frozen=True)
class _Job:
    """A search that a worker is to carry out."""

    key: str
    method: str
    goal: Goal
    budget: int
    kept: tuple[tuple[str, Any], ...]
    """What was kept of it before."""


@dataclass(frozen=True)
class _Round:
    """What a worker says of a search after each round."""

    kept: Sequence[tuple[str, Any]]
    """What is new."""
    queries: int
    broken: bool
    outcome: Outcome | None


class _Recorded(Store):
    """A store that is also told of: in a worker, whose disk may be lost with it."""

    def __init__(self, path: Path, kept: Sequence[tuple[str, Any]]) -> None:
        super().__init__(path, write=True)
        for key, value in kept:
            super().add(key, value)
        self.fresh: list[tuple[str, Any]] = []

    def add(self, key: str, value: Any) -> None:
        """As every store."""
        super().add(key, value)
        self.fresh.append((key, value))


def _about(
    opened: Callable[[Any], Searching], goals: Sequence[Goal], tokens: int, held: Any, _: None, say: Say
) -> None:
    found = opened(held).prepared(goals)
    say((found.not_run, found.parties.names(tokens), replace(found.tools, model=None)))


def _carry_out(opened: Callable[[Any], Searching], goals: Sequence[Goal], held: Any, job: _Job, say: Say) -> None:
    """One search, told of round by round."""
    found = opened(held).prepared(goals)
    method = next(one for one in found.methods if one.name == job.method)
    rounds = Rounds(found.parties, found.settings.max_answer_tokens)
    with tempfile.TemporaryDirectory() as folder, closing(_Recorded(Path(folder) / "search.jsonl", job.kept)) as kept:
        search = RunningSearch(job.key, method, job.goal, job.budget, found.settings.seed, found.tools, kept)
        while True:
            ended = search.ended is not None
            outcome = search.outcome() if ended else None
            say(_Round(tuple(kept.fresh), search.queries, search.broken, outcome))
            kept.fresh.clear()
            if ended:
                return
            (replies,) = rounds.answer([search])
            if search.ended is None:
                search.go_on(replies)


class _There(State):
    """Which searches wait, are workers' and are done."""

    def __init__(self, folder: Path, settings: SearchSettings, tools: Tools) -> None:
        super().__init__(folder, settings, tools)
        self._begun: dict[str, tuple[Store, _Round | None]] = {}
        """By key, those that workers carry out: their replies, and what was last said of them."""

    def jobs(self) -> Iterator[_Job]:
        """Searches for workers, as they are begun."""
        while self.waiting:
            one = self.waiting.popleft()
            self._begun[one.key] = self.enter_context(Store(one.file, write=True)), None
            yield self.left(_Job(one.key, one.method.name, one.goal, one.budget, ()))

    def left(self, job: _Job) -> _Job:
        """The search as far as it is kept, for the next worker."""
        kept, _ = self._begun[job.key]
        return replace(job, kept=tuple(kept.records(StoredReply).items()))

    def hear(self, job: _Job, said: _Round) -> None:
        """Keeps what a worker says of a search."""
        kept, _ = self._begun[job.key]
        for key, value in said.kept:
            kept.add(key, value)
        kept.sync()
        self._begun[job.key] = kept, said
        if said.outcome is not None:
            self._finish(job, said.outcome)

    def lose(self, job: _Job, cause: str) -> None:
        """No worker could carry it out: it is unscored, and run again by the next run."""
        outcome = Outcome(
            key=job.key, method=job.method, goal=job.goal.request.id, harmful=job.goal.request.harmful,
            budget=job.budget, ended="error", cause=cause,
        )  # fmt: skip
        self._finish(job, outcome)

    def _finish(self, job: _Job, outcome: Outcome) -> None:
        kept, _ = self._begun.pop(job.key)
        kept.close()
        self.done[job.key] = outcome
        self.outcomes.add(job.key, outcome)
        self.outcomes.sync()

    def progress(self) -> SearchProgress:
        """Where the run stands."""
        rounds = [said for _, said in self._begun.values() if said is not None]
        found = super().progress()
        return replace(
            found,
            alive=len(self._begun),
            queries=found.queries + sum(one.queries for one in rounds),
            broken=found.broken + sum(one.broken for one in rounds),
        )
