"""Rows of a plan in the order in which a prefix cache gets most out of them, sorted on disk."""

from __future__ import annotations

import hashlib
import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field

from forethought.attacks.base import Attack, Attacked
from forethought.attacks.catalogue import DIRECT
from forethought.attacks.prepare import Planned, Preparation, prepare
from forethought.attempts.records import PLAN_FILE, PlannedAttempt
from forethought.data.benchmarks.behaviors import Behavior
from forethought.errors import ConfigError
from forethought.manifest import write_json
from forethought.records import Message, Record, Request, write_jsonl
from forethought.store import locked

_LEAD = 600
"""Characters by which rows are compared; those that share so many stand together, shorter ones first."""
_ROWS = 20_000
"""Most rows held at once."""
_BYTES = 64 << 20
"""Most characters held at once: rows of many-shot attacks are long."""
_NOT_RUN = "~"


def sorted_rows(rows: Iterable[PlannedAttempt], scratch: Path) -> Iterator[PlannedAttempt]:
    """The rows by their leading text, then length, then id; those that are not run come last, by attack.

    Rows that begin alike, a template's text or a system prompt, follow each other, and so do rows that are alike
    throughout. Memory is that of one run of the merge sort; `scratch` is a folder with room for all rows.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder, ExitStack() as stack:
        runs = [_write(lines, Path(folder) / str(number)) for number, lines in enumerate(_chunks(rows))]
        files = [stack.enter_context(run.open(encoding="utf-8")) for run in runs]
        for line in heapq.merge(*files):
            yield PlannedAttempt.model_validate_json(line.rpartition("\t")[2])


def _chunks(rows: Iterable[PlannedAttempt]) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for row in rows:
        held.append(f"{_key(row)}\t{row.model_dump_json(exclude_defaults=True)}\n")
        size += len(held[-1])
        if len(held) >= _ROWS or size >= _BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _write(lines: list[str], path: Path) -> Path:
    lines.sort()
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def _key(row: PlannedAttempt) -> str:
    """JSON text in ASCII, without a tab: keys are compared as lines of a file are."""
    if row.cause:
        return json.dumps([_NOT_RUN, row.attack, row.id])
    said = [f"{message.role} {message.content}" for message in row.request.messages]
    lead, length = "", sum(len(one) for one in said) + len(row.prefill)
    for one in said:
        lead += one[: _LEAD - len(lead)] + "\n"
        if len(lead) >= _LEAD:
            break
    return json.dumps([" ", lead[:_LEAD], f"{length:09}", row.id])


# The plan of a suite: every attack on every behaviour, on disk, in the order in which it is asked.
#
# Made as a stream: memory doesn't grow with the number of attempts beyond some bytes for each. The same inputs give the
# same bytes, and replies are kept by content, so that a plan can be made again, larger or smaller, and nothing that was
# answered is asked twice.

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
    how: Preparation | None = None,
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
    sides = (("harmful", harmful), ("harmless", harmless))
    start = PlanSummary(attacks=tuple(named), harmful=len(harmful), harmless=len(harmless))
    return write_plan(folder, _rows(list(named.values()), sides, how or Preparation()), start)


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
    attacks: Sequence[Attack], sides: Sequence[tuple[str, Sequence[Behavior]]], how: Preparation
) -> Iterator[PlannedAttempt]:
    for attack in attacks:
        size = _CHUNK_ASKED if "attacker" in attack.needs else _CHUNK
        for side, behaviors in sides:
            for start in range(0, len(behaviors), size):
                chunk = behaviors[start : start + size]
                bare = [_without_context(behavior, side == "harmful") for behavior in chunk]
                made = prepare([attack], bare, how)
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
