"""The plan of a suite: every attack on every behaviour, on disk, in the order in which it is asked.

Made as a stream: memory doesn't grow with the number of attempts beyond some bytes for each. The same inputs give the
same bytes, and replies are kept by content, so that a plan can be made again, larger or smaller, and nothing that was
answered is asked twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import Field

from forethought.engine.conversation import Able
from forethought.errors import ConfigError
from forethought.evals.attacks.base import Attack, Attacked, Given
from forethought.evals.attacks.catalogue import DIRECT
from forethought.evals.attacks.prepare import AskAttacker, Planned, Rewrites, prepare
from forethought.evals.benchmarks.behaviors import Behavior
from forethought.evals.suite.order import sorted_rows
from forethought.evals.suite.records import PLAN_FILE, PlannedAttempt
from forethought.manifest import write_json
from forethought.records import Message, Record, Request, write_jsonl
from forethought.store import locked

SUMMARY_FILE = "plan.json"
PLAN_LOCK = "plan.lock"
_CHUNK = 256
"""Behaviours prepared at once: an attack of many shots makes a hundred kilobytes of each."""
_CHUNK_ASKED = 2048
"""The same where an attacker model writes: its calls run at once."""


class PlanSummary(Record):
    """What a plan holds."""

    attacks: tuple[str, ...]
    """All of them, `direct` first; also those that can't be run here."""
    harmful: int
    """Behaviours under each attack."""
    harmless: int
    attempts: int = 0
    """Rows that are run."""
    conversations: int = 0
    """Different ones among them: so many are asked."""
    repeated: int = 0
    """Rows left out because the same text stands in the same cell already."""
    not_run: dict[str, dict[str, int]] = Field(default_factory=dict)
    """By attack, how many requests it can't be carried out on, by cause."""


def make_plan(
    folder: Path,
    attacks: Sequence[Attack],
    harmful: Sequence[Behavior],
    harmless: Sequence[Behavior],
    seed: int,
    given: Given | None = None,
    able: Able | None = None,
    rewrites: Rewrites | None = None,
    ask: AskAttacker | None = None,
) -> PlanSummary:
    """Writes `folder`/plan.jsonl and its summary beside it, each in one step.

    Behaviours count as harmful or harmless by the list they stand in. The direct requests are always among the
    attempts: every style is compared with them. Cells: `direct` and `ordinary` (harmful and harmless as they are),
    and each attack's name with `:harmful` and `:harmless`; names of attacks may hold colons themselves.
    Raises ConfigError and InputError for options and files of attacks that can't be used, and for no behaviours;
    StageError while another plan is being made there.
    """
    if not harmful and not harmless:
        raise ConfigError("a plan", "has no behaviours", "Give a benchmark with rows, or a larger limit")
    named = {attack.name: attack for attack in (DIRECT, *attacks)}
    rows = _rows(list(named.values()), (("harmful", harmful), ("harmless", harmless)), seed, given, able, rewrites, ask)
    start = PlanSummary(attacks=tuple(named), harmful=len(harmful), harmless=len(harmless))
    return write_plan(folder, rows, start)


def write_plan(folder: Path, rows: Iterable[PlannedAttempt], start: PlanSummary) -> PlanSummary:
    """Sorts rows, leaves repeated ids out, writes them, and counts them into `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    tally = _Tally()
    with locked(folder / PLAN_LOCK):
        write_jsonl(folder / PLAN_FILE, tally.once(sorted_rows(rows, folder)))
        summary = start.model_copy(
            update={
                "attempts": tally.attempts,
                "conversations": len(tally.asked),
                "repeated": tally.repeated,
                "not_run": {attack: dict(causes) for attack, causes in sorted(tally.not_run.items())},
            }
        )
        write_json(folder / SUMMARY_FILE, summary.model_dump(mode="json"))
    return summary


class _Tally:
    """Counts rows as they pass. Holds ids, no texts."""

    def __init__(self) -> None:
        self.attempts = self.repeated = 0
        self.asked: set[str] = set()
        self.not_run: dict[str, Counter[str]] = {}
        self._ids: set[str] = set()

    def once(self, rows: Iterable[PlannedAttempt]) -> Iterator[PlannedAttempt]:
        for row in rows:
            if row.id in self._ids:
                self.repeated += 1
                continue
            self._ids.add(row.id)
            if row.cause:
                self.not_run.setdefault(row.attack, Counter())[row.cause] += 1
            else:
                self.attempts += 1
                self.asked.add(row.asked)
            yield row


def _rows(
    attacks: Sequence[Attack],
    sides: Sequence[tuple[str, Sequence[Behavior]]],
    seed: int,
    given: Given | None,
    able: Able | None,
    rewrites: Rewrites | None,
    ask: AskAttacker | None,
) -> Iterator[PlannedAttempt]:
    for attack in attacks:
        size = _CHUNK_ASKED if "attacker" in attack.needs else _CHUNK
        for side, behaviors in sides:
            for start in range(0, len(behaviors), size):
                chunk = behaviors[start : start + size]
                bare = [_without_context(behavior, side == "harmful") for behavior in chunk]
                made = prepare([attack], bare, seed, given, able, rewrites, ask)
                for behavior, one in zip(chunk, made, strict=True):
                    yield _row(attack, side, behavior, one)


def _without_context(behavior: Behavior, harmful: bool) -> Request:
    """What an attack restyles: the request without the text that it is about."""
    request = behavior.request.model_copy(update={"harmful": harmful})
    return _with_last(request, behavior.asked) if behavior.context else request


def _row(attack: Attack, side: str, behavior: Behavior, one: Planned) -> PlannedAttempt:
    plain = {"harmful": "direct", "harmless": "ordinary"}[side]
    cell = plain if attack.name == DIRECT.name else f"{attack.name}:{side}"
    if one.attacked is None:
        request = behavior.request.model_copy(update={"harmful": side == "harmful"})
        return PlannedAttempt(
            id=_id("not run", request.plain, cell),
            attack=attack.name,
            request=request,
            cells=(cell,),
            behavior=behavior.id,
            cause=one.cause,
        )
    row = PlannedAttempt(
        id="",
        attack=attack.name,
        request=_placed(behavior, one.attacked),
        cells=(cell,),
        prefill=one.attacked.prefill,
        think_budget=one.attacked.think_budget,
        lineage=one.attacked.lineage,
        behavior=behavior.id,
    )
    return row.model_copy(update={"id": _id(row.asked, row.request.plain, cell)})


def _placed(behavior: Behavior, attacked: Attacked) -> Request:
    """The attacked request with its context again. What is really asked is the benchmark's request, context and all:
    it is what a judge reads, and what the styles of one behaviour share."""
    if not behavior.context:
        return attacked.request
    request = _with_last(attacked.request, behavior.placed(attacked.text))
    return request.model_copy(update={"seed_text": behavior.request.plain if attacked.lineage else None})


def _with_last(request: Request, text: str) -> Request:
    last = Message(role="user", content=text)
    return request.model_copy(update={"messages": (*request.messages[:-1], last)})


def _id(*parts: str) -> str:
    return hashlib.sha256("\x1d".join(parts).encode()).hexdigest()[:16]
