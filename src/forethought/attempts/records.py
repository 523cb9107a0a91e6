"""What a suite is made of: attempts as they are planned, what was said to them, and what a judge found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from forethought.judges.base import Verdict
from forethought.models.conversation import Conversation, Response
from forethought.records import Record, Request, read_jsonl

PLAN_FILE = "plan.jsonl"


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
        """Content id of all that the model is given: attempts that share it are asked once."""
        return conversation_id(self.conversation)


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


def conversation_id(conversation: Conversation) -> str:
    """Content id of all that a model is given, 16 hexadecimal digits."""
    joined = "\x1e".join(f"{m.role}\x1f{m.content}" for m in conversation.messages)
    joined += f"\x1d{conversation.prefill}\x1d{conversation.think_budget}"
    return hashlib.sha256(joined.encode("utf-8")).hexdigest()[:16]


def planned(folder: Path) -> Iterator[PlannedAttempt]:
    """The rows of a folder's plan, one by one. Raises InputError where there is none, or a line is damaged."""
    return read_jsonl(folder / PLAN_FILE, PlannedAttempt)
