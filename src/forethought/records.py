"""The nouns that travel between stages: frozen, typed, and identified by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from forethought.errors import InputError, reason_of
from forethought.manifest import replacing
from forethought.reasoning import SafetyReasoning

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "dev", "test"]


class Record(BaseModel):
    """Base of all records: immutable, and unknown fields are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a conversation."""

    role: Role
    content: str


class Request(Record):
    """What a user asks: one prompt or a conversation that ends with a user turn."""

    messages: tuple[Message, ...]
    harmful: bool | None = None
    """True, False, or None where the source does not say."""
    rules: tuple[str, ...] = ()
    """Policy rule ids that it breaks; empty when harmless or not known yet."""
    categories: tuple[str, ...] = ()
    """The source's own names for what is wrong with it."""
    source: str = ""
    """Where it came from: a file name or `shipped`."""
    family: str = ""
    """Scenario; rows of one family never stand on both sides of a split."""
    twin: str = ""
    """What a harmful request and its harmless look-alike share: both are restyled alike."""
    kind: str = ""
    """`ordinary`, `lookalike`, `harmful`: the group in which it is reported."""
    answer: str | None = None
    """The source's own answer or refusal, where it has one."""
    operator: str | None = None
    """Name of the operator or attack that restyled it; None for the original."""
    seed_text: str | None = None
    """The undisguised request, when restyled."""

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content

    @property
    def plain(self) -> str:
        """What is really asked: the seed when disguised, else the text itself."""
        return self.seed_text if self.seed_text is not None else self.text

    @property
    def id(self) -> str:
        """Content id, 12 hexadecimal digits: same conversation, same id."""
        joined = "\x1e".join(f"{m.role}\x1f{m.content}" for m in self.messages)
        return hashlib.sha256(joined.encode()).hexdigest()[:12]

    @property
    def seed_id(self) -> str:
        """Id of the undisguised request: what restyled rows of one seed share."""
        return hashlib.sha256(self.plain.encode()).hexdigest()[:12]

    @property
    def cluster(self) -> str:
        """What a request shares with its variants, its twin and its scenario; never on both sides of a split."""
        return self.family or self.twin or self.seed_id

    @property
    def plain_id(self) -> str:
        """`id` of the undisguised conversation: what a lesson is filed under."""
        return self.undisguised.id

    @property
    def undisguised(self) -> Request:
        """The request as it was before it was restyled; one that never was stays as it is."""
        return self.said(self.plain, operator=None, seed_text=None)

    def restyled(self, text: str, operator: str) -> Request:
        """The same request in another style, which remembers what is really asked."""
        return self.said(text, operator=operator, seed_text=self.plain)

    def said(self, text: str, **changes: str | None) -> Request:
        """The same with another last user turn, and other values of fields."""
        last = Message(role="user", content=text)
        return self.model_copy(update={"messages": (*self.messages[:-1], last), **changes})


def user_request(text: str, **fields: object) -> Request:
    """A request of one user turn."""
    return Request.model_validate({"messages": ({"role": "user", "content": text},), **fields})


class Example(Record):
    """One training row: a request, the reasoning written for it, and the answer."""

    request: Request
    reasoning: SafetyReasoning
    answer: str
    """Text after the reasoning; empty for rows that teach the thought alone."""
    answer_complete: bool = True
    """False where the answer was cut at a length or left out: no end token is taught."""
    prefill: str = ""
    """What the model's turn begins with before what is taught, such as the opening that an attack put there. It bears
    no loss."""

    @property
    def term(self) -> Literal["refusal", "benign"]:
        """Which term of the loss the row belongs to."""
        return "refusal" if self.reasoning.verdict == "refuse" else "benign"


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_jsonl(path: Path, rows: Iterable[BaseModel]) -> int:
    """Writes rows beside the path, then moves them into place, so that no half file is kept.

    Returns the number of rows.
    """
    count = 0
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count


def read_record(file: Path, kind: type[AnyRecord], fix: str) -> AnyRecord:
    """The one record that a file holds. Raises InputError with `fix` where it is damaged."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InputError(file, f"is damaged ({reason_of(error)})", fix) from None


def read_jsonl(path: Path, kind: type[AnyRecord], start: int = 0, stop: int | None = None) -> Iterator[AnyRecord]:
    """Reads rows one by one, those between two places in bytes. Raises InputError that names the line that is broken,
    counted from the first that is read.
    """
    if not path.is_file():
        raise InputError(path, "there is no such file", "Run the stage that writes it, or give another path")
    with path.open("rb") as file:
        file.seek(start)
        for number, line in enumerate(file, start=1):
            start += len(line)
            if stop is not None and start > stop:
                return
            if not line.strip():
                continue
            try:
                yield kind.model_validate(json.loads(line))
            except (ValidationError, ValueError) as error:
                raise InputError(
                    f"{path}, line {number}",
                    f"is not a {kind.__name__} row ({reason_of(error)})",
                    "Delete that file, and run the command that wrote it again: it makes it anew",
                ) from None
