"""What a suite is made of: attempts as they are planned, what was said to them, and what a judge found."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field

from forethought.errors import StageError
from forethought.judges.base import Verdict
from forethought.models.conversation import Conversation, Failed, Response
from forethought.records import Record, Request, read_jsonl
from forethought.store import Store, locked, rewrite

PLAN_FILE = "plan.jsonl"
JUDGED_FOLDER = "judged"
NOT_JUDGED = "not judged"


class Attempt(Record):
    """A request under an attack, as it is put to every defence."""

    id: str
    """Unique within a plan."""
    attack: str
    request: Request
    cells: tuple[str, ...]
    """Where it counts in the table; one text can count in two cells."""
    prefill: str = ""
    """Text of the model's own turn from which it goes on, thought markers included."""
    think_budget: int | None = None
    """Tokens of thought after which the thought is cut; None is the model's own."""
    lineage: tuple[str, ...] = ()
    """The attacks applied, in order, each with its options."""
    behavior: str = ""
    """Id of the benchmark's row that it stands for, where it comes from one."""

    @property
    def conversation(self) -> Conversation:
        """As a model is given it."""
        return Conversation(messages=self.request.messages, prefill=self.prefill, think_budget=self.think_budget)

    @property
    def asked(self) -> str:
        """Content id of all that the model is given, 16 hexadecimal digits: attempts that share it are asked once."""
        joined = "\x1e".join(f"{m.role}\x1f{m.content}" for m in self.request.messages)
        joined += f"\x1d{self.prefill}\x1d{self.think_budget}"
        return hashlib.sha256(joined.encode("utf-8")).hexdigest()[:16]


class PlannedAttempt(Attempt):
    """An attempt of a plan, or an attack that can't be carried out on a request here."""

    cause: str = ""
    """Why it is not run: then `request` is the undisguised one, and it is neither refused nor safe, and in no mean."""

    @property
    def attempt(self) -> Attempt:
        """Without what only a plan knows."""
        return Attempt.model_construct(**{name: getattr(self, name) for name in Attempt.model_fields})


class Judged(Record):
    """What one defence said to one attempt, and the judge's finding."""

    attempt: Attempt
    response: Response | None
    """None when the model failed; the attempt is unscored then."""
    refused: bool | None
    """None is unscored."""
    cause: str = ""
    """Why it is unscored."""
    verdict: Verdict | None = None
    """All that the judge said; None where it was not asked."""
    decoded: bool | None = Field(default=None, exclude_if=lambda value: value is None)
    """Whether the response tells what a disguised request asks, word for word; None where that was not looked at."""


def planned(folder: Path) -> Iterator[PlannedAttempt]:
    """The rows of a folder's plan, one by one. Raises InputError where there is none, or a line is damaged."""
    return read_jsonl(folder / PLAN_FILE, PlannedAttempt)


# Every reply of a run, on disk the moment it is there, each once.

REPLIES_FILE = "replies.jsonl"
FAILURES_FILE = "failures.jsonl"
LOCK_FILE = "run.lock"
NOT_ASKED = "not asked: the run ended before its turn"


class Replies(ExitStack):
    """What came back, by `Attempt.asked`; responses are read from disk as they are wanted.

    Responses are kept for good; failures are kept apart, and asked again. Closed, all is on disk, and the folder free
    for the next run.
    """

    def __init__(self, folder: Path, write: bool = False) -> None:
        """Raises StageError where it is to write and another run does so, InputError for a damaged line."""
        super().__init__()
        self._lock = threading.Lock()
        with ExitStack() as stack:
            if write:
                stack.enter_context(locked(folder / LOCK_FILE))
            self._responses = stack.enter_context(Store(folder / REPLIES_FILE, write))
            if write:
                _keep_open_failures(folder / FAILURES_FILE, self._responses)
            self._failures = stack.enter_context(Store(folder / FAILURES_FILE, write))
            self.push(stack.pop_all())

    def get(self, asked: str) -> Response | Failed:
        """The response, or why there is none."""
        response = self._responses.read(asked, Response)
        return response or Failed(cause=self._failures.get(asked) or NOT_ASKED)

    def __contains__(self, asked: str) -> bool:
        """Whether there is a response."""
        return asked in self._responses

    def has_failed(self, asked: str) -> bool:
        """Whether it was asked, and got no response."""
        return asked in self._failures and asked not in self._responses

    def __len__(self) -> int:
        return len(self._responses)

    def keep(self, asked: str, reply: Response | Failed) -> bool:
        """Keeps a reply; True where it is new. A second response to the same conversation is passed over."""
        with self._lock:
            if asked in self._responses:
                return False
            if isinstance(reply, Failed):
                self._failures.add(asked, reply.cause)
            else:
                self._responses.add(asked, reply)
            return True


def _keep_open_failures(path: Path, responses: Store) -> None:
    """Failures of earlier runs that have no response yet, each once, so that the file doesn't grow run by run."""
    if path.is_file():
        with Store(path) as old:
            rewrite(path, ((asked, old.get(asked)) for asked in old if asked not in responses))


def verdicts_file(folder: Path, judge_name: str) -> Path:
    """Where a judge's verdicts stand. Names that differ have files that differ, whatever their characters."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", judge_name)
    if slug != judge_name:
        slug += "-" + hashlib.sha256(judge_name.encode()).hexdigest()[:6]
    return folder / JUDGED_FOLDER / f"{slug}.jsonl"


def read_judged(folder: Path, judge_name: str | None = None) -> Iterator[Judged]:
    """All attempts of the plan that can be run, in its order, with what was said and what the judge found.

    An attempt without a response or a verdict is unscored, with the cause; without a judge all of them are. Attempts
    that can't be run are left out: `PlanSummary.not_run` counts them. `Judged.refused` is the judge's; what a judge of
    harm says of harmful requests stands in `Judged.verdict`. Raises StageError where this judge has not judged here.
    """
    path = verdicts_file(folder, judge_name or "")
    if judge_name is not None and not path.is_file():
        raise StageError(path, f"there are no verdicts of the judge '{judge_name}'", "Judge the run with it first")
    with Replies(folder) as replies, Store(path) as verdicts:
        for row in planned(folder):
            if row.cause:
                continue
            reply, verdict = replies.get(row.asked), verdicts.read(row.id, Verdict)
            if isinstance(reply, Failed):
                yield Judged(attempt=row.attempt, response=None, refused=None, cause=reply.cause)
            else:
                found = verdict or Verdict(cause=NOT_JUDGED)
                yield Judged(
                    attempt=row.attempt, response=reply, refused=found.refused, cause=found.cause, verdict=verdict
                )
