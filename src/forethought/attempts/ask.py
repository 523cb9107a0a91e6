"""A plan put to a model: many attempts of all attacks at once, each reply kept as it comes, and none asked twice."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pydantic import Field

from forethought.attempts.plan import PlanSummary, write_plan
from forethought.attempts.records import Attempt, PlannedAttempt, Replies, planned
from forethought.errors import ConfigError, ModelError, StageError
from forethought.manifest import write_json
from forethought.models.callspec import Price, cost_of
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.records import Record

WINDOW = 4096
"""Conversations put to the model at once: dozens of batches, so that the emptying of the last one weighs little."""
_DEAD_WINDOWS = 2
"""So many windows in a row without one response, and a run stops: what is left waits for the next run."""
_SETTINGS_FILE = "run.json"
_STOPPED = "the model stopped answering"


class RunCounts(Record):
    """What a run did."""

    attempts: int = 0
    """Of the plan, those that can be run."""
    not_run: int = 0
    """Of the plan, those that can't."""
    reused: int = 0
    """Conversations whose response was there already."""
    answered: int = 0
    """Conversations that got one in this run."""
    failed: int = 0
    """Conversations that got none, in spite of a second try."""
    causes: dict[str, int] = Field(default_factory=dict)
    """Why."""
    prompt_tokens: int = 0
    """Of this run, as are the rest."""
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    stopped: str = ""
    """Why the run ended before the plan did; empty where it didn't. What was not asked is unscored."""


def run_suite(
    folder: Path,
    respondent: Respondent,
    max_answer_tokens: int = 128,
    on_progress: Callable[[int], None] | None = None,
    window: int = WINDOW,
) -> RunCounts:
    """Asks all of a folder's plan that has no response yet.

    A run that was killed goes on where it was. What failed is asked once more at the end, and again by the next
    run. `on_progress(n)`: n more attempts are finished. Raises ModelError where the model never answers anything,
    ConfigError where the folder holds another model's replies, StageError where another run writes there.
    """
    with Replies(folder, write=True) as kept:
        _check_settings(folder, {"model": respondent.name, "max_answer_tokens": max_answer_tokens}, len(kept))
        return _Run(folder, respondent, max_answer_tokens, kept, on_progress, window).go()


def ask_rows(
    folder: Path,
    respondent: Respondent,
    rows: Sequence[Attempt],
    max_answer_tokens: int,
    on_progress: Callable[[int], None] | None = None,
    what: str = "",
) -> None:
    """Plans these attempts in a folder and asks all of them; a run that was stopped goes on where it was.

    Raises StageError, which names `what`, where the model stops answering on the way, ModelError where it never does.
    """
    attacks = tuple(dict.fromkeys(row.attack for row in rows))
    n_harmful = sum(row.request.harmful is True for row in rows)
    start = PlanSummary(attacks=attacks, harmful=n_harmful, harmless=len(rows) - n_harmful)
    write_plan(folder, (PlannedAttempt.model_validate(row.model_dump()) for row in rows), start)
    counts = run_suite(folder, respondent, max_answer_tokens, on_progress)
    if counts.stopped:
        raise StageError(what or folder, f"did not finish ({counts.stopped})", "Run the command again: it resumes")


@dataclass
class _Run:
    """One run's state; numbers and ids, and the conversations of one window."""

    folder: Path
    respondent: Respondent
    max_answer_tokens: int
    kept: Replies
    on_progress: Callable[[int], None] | None
    window: int
    counts: Counter[str] = field(default_factory=Counter)
    """By the fields of `RunCounts`."""
    causes: dict[str, str] = field(default_factory=dict)
    """By conversation that has no response after its last asking."""
    stopped: str = ""
    dead: int = 0
    """Windows in a row without a response."""

    def __post_init__(self) -> None:
        self._start, self._had = time.monotonic(), len(self.kept)
        self._lock = threading.Lock()

    def go(self) -> RunCounts:
        """Everything without a response, and what failed once more, unless nothing was answered: it may be back."""
        self._ask_all(self._pending())
        if self.causes and self.counts["answered"] and not self.stopped:
            self.dead, self.on_progress = 0, None
            self._ask_all(self._failed(set(self.causes)))
        return RunCounts(
            **self.counts,
            failed=len(self.causes),
            causes=dict(Counter(self.causes.values()).most_common()),
            seconds=time.monotonic() - self._start,
            stopped=self.stopped,
        )

    def _pending(self) -> Iterator[tuple[str, Conversation]]:
        """Conversations to ask, each once however many attempts share it. Counts the plan on the way."""
        seen: set[str] = set()
        for row in planned(self.folder):
            if row.cause:
                self.counts["not_run"] += 1
                continue
            self.counts["attempts"] += 1
            asked = row.asked
            if asked in seen:
                self._progress()
                continue
            seen.add(asked)
            if asked in self.kept:
                self.counts["reused"] += 1
                self._progress()
                continue
            yield asked, row.conversation

    def _failed(self, open_ids: set[str]) -> Iterator[tuple[str, Conversation]]:
        for row in planned(self.folder):
            if not row.cause and (asked := row.asked) in open_ids:
                open_ids.remove(asked)
                yield asked, row.conversation

    def _progress(self) -> None:
        if self.on_progress is not None:
            self.on_progress(1)

    def _ask_all(self, conversations: Iterator[tuple[str, Conversation]]) -> None:
        while part := list(islice(conversations, self.window)):
            self._ask(dict(part))
            if self.stopped:
                self._count_rest(conversations)
                return

    def _ask(self, part: dict[str, Conversation]) -> None:
        before, keys = self.counts["answered"], list(part)
        told: set[int] = set()

        def on_reply(place: int, reply: Response | Failed) -> None:
            told.add(place)
            self._keep(keys[place], reply)

        try:
            replies = list(self.respondent.reply(list(part.values()), self.max_answer_tokens, on_reply))
        except ModelError as error:
            if not self.counts["answered"] and not self._had:
                raise
            self.stopped = str(error)  # it answered before: what is left waits, unscored, for the next run
            replies = [Failed(cause=str(error))] * len(part)
        for place, reply in enumerate(replies):
            if place not in told:
                self._keep(keys[place], reply)
        self.dead = 0 if self.counts["answered"] > before else self.dead + 1
        if self.dead >= _DEAD_WINDOWS:
            self.stopped = _STOPPED

    def _keep(self, asked: str, reply: Response | Failed) -> None:
        with self._lock:
            if not self.kept.keep(asked, reply):
                return
            if isinstance(reply, Failed):
                self.causes[asked] = reply.cause
            else:
                self.causes.pop(asked, None)
                self.counts["answered"] += 1
                for name in ("prompt_tokens", "reasoning_tokens", "answer_tokens"):
                    self.counts[name] += getattr(reply, name)
            self._progress()

    def _count_rest(self, conversations: Iterator[tuple[str, Conversation]]) -> None:
        """Goes through what won't be asked, so that the plan is counted whole."""
        self.on_progress = None
        for _ in conversations:
            pass


def _check_settings(folder: Path, settings: dict[str, object], n_replies: int) -> None:
    """Replies of another model, or of another length, must not be taken for this one's."""
    path = folder / _SETTINGS_FILE
    if n_replies and path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held != settings:
            raise ConfigError(folder, f"holds replies of {held}, not of {settings}", "Give another folder")
    write_json(path, settings)


# What a run cost: queries, tokens and, where a price is known, dollars, by attack.


class AttackUsage(Record):
    """What one attack cost, or all of them."""

    attempts: int = 0
    queries: int = 0
    """Conversations that were answered; attempts that share one are asked once, and the first attack is charged."""
    unanswered: int = 0
    """Attempts without a response."""
    prompt_tokens: int = 0
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    cost: float | None = None
    """US dollars; None where no price is known."""


def usage_by_attack(folder: Path, price: Price | None = None) -> dict[str, AttackUsage]:
    """By attack, in the order of their names, what a folder's replies cost."""
    counts: dict[str, dict[str, int]] = {}
    charged: set[str] = set()
    with Replies(folder) as replies:
        for row in planned(folder):
            if row.cause:
                continue
            count = counts.setdefault(row.attack, dict.fromkeys(AttackUsage.model_fields, 0))
            count["attempts"] += 1
            asked = row.asked
            if asked in charged:
                continue
            reply = replies.get(asked)
            if isinstance(reply, Failed):
                count["unanswered"] += 1
                continue
            charged.add(asked)
            count["queries"] += 1
            for name in ("prompt_tokens", "reasoning_tokens", "answer_tokens"):
                count[name] += int(getattr(reply, name))
    return {attack: _priced(count, price) for attack, count in sorted(counts.items())}


def total_usage(by_attack: dict[str, AttackUsage], price: Price | None = None) -> AttackUsage:
    """All attacks together."""
    names = AttackUsage.model_fields
    return _priced(
        {name: sum(getattr(one, name) for one in by_attack.values()) for name in names if name != "cost"}, price
    )


def _priced(count: dict[str, int], price: Price | None) -> AttackUsage:
    written = count["reasoning_tokens"] + count["answer_tokens"]
    return AttackUsage.model_validate({**count, "cost": cost_of(count["prompt_tokens"], written, 0, price)})
