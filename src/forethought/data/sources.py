"""Any refusal or instruction set as Requests, by a small column mapping that is guessed and shown."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from forethought.data.columns import (
    ColumnMapping,
    categories_of,
    flat,
    guess_mapping,
    is_blank,
    label_of,
    messages_of,
    pairs_of,
    sound,
    transcript,
    turns_of,
)
from forethought.data.readers import Row, read_datasets, read_rows
from forethought.data.shipped import shipped_requests
from forethought.errors import InputError
from forethought.records import Message, Record, Request

__all__ = ["ColumnMapping", "OnSkip", "SourceSpec", "guess_mapping", "hash_sample", "load_requests"]

SHIPPED = "shipped:"
_HEAD = 200
"""Rows from which the mapping is guessed."""
OnSkip = Callable[[str, str], None]
"""Called for each row that is left out with a cause, `no text` or `malformed`, and where it stands."""
_OWN_FIELDS = frozenset(Request.model_fields)


class SourceSpec(Record):
    """A source in a recipe: what to read and, where guessing fails, which column is which."""

    path: str
    """File, folder, glob, `wheel::member`, `pkg:NAME/path`, `hub:NAME@split`, `disk:PATH` or `shipped:SET`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Overrides of the guessed mapping, such as `{text: my_column}`."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many rows, drawn by content hash; None is all."""
    skip_bad: bool = False
    """True: malformed rows are counted and left out. False: the first is an error that names its line."""


def load_requests(
    spec: SourceSpec,
    harmful: bool | None,
    on_mapping: Callable[[str, ColumnMapping], None] | None = None,
    on_skip: OnSkip | None = None,
    only: bool | None = None,
) -> Iterator[Request]:
    """Streams a source as Requests; memory does not grow with the source.

    `harmful` is what the user says of the whole source; a label column in it wins row
    by row, and a word in it that is no label leaves the row unlabelled. `only` keeps
    the rows of one label, before the limit is applied. `on_mapping(name, mapping)` is
    called once a file, so that a caller can show what was guessed. Rows without text
    are left out. Raises InputError for an unreadable or empty source, a malformed row
    unless `skip_bad`, and a label column that says the opposite of `harmful` throughout.
    """
    if spec.path.startswith(SHIPPED):
        requests: Iterable[Request] = shipped_requests(spec.path.removeprefix(SHIPPED))
    else:
        requests = _stream(spec, harmful, on_mapping or (lambda name, mapping: None), on_skip or (lambda why, at: None))
    if only is not None:
        requests = (request for request in requests if request.harmful is only)
    return iter(requests) if spec.limit is None else iter(hash_sample(requests, spec.limit))


def hash_sample(requests: Iterable[Request], most: int) -> list[Request]:
    """At most `most` different requests, those of the smallest content hashes, in the order of the stream.

    Which ones are drawn does not depend on that order, and memory holds no more than
    these. A request and its look-alike share their hash, so that pairs stay together.
    """
    kept: list[tuple[int, int, Request]] = []  # a heap with the largest hash on top, hence the minus
    held: set[str] = set()
    for place, request in enumerate(requests):
        rank = -int(hashlib.sha256(f"limit:{request.twin or request.id}".encode()).hexdigest()[:16], 16)
        if request.id in held or (len(kept) == most and rank <= kept[0][0]):
            continue
        held.add(request.id)
        if len(kept) < most:
            heapq.heappush(kept, (rank, -place, request))
        else:
            held.discard(heapq.heapreplace(kept, (rank, -place, request))[2].id)
    return [request for _, _, request in sorted(kept, key=lambda entry: -entry[1])]


def _stream(
    spec: SourceSpec, harmful: bool | None, on_mapping: Callable[[str, ColumnMapping], None], on_skip: OnSkip
) -> Iterator[Request]:
    def on_bad(error: InputError) -> None:
        if not spec.skip_bad:
            raise error
        on_skip("malformed", f"{error.value}: {error.rule}")

    by_library = spec.path.startswith(("hub:", "disk:"))
    pairs = read_datasets(spec.path) if by_library else read_rows(spec.path, on_bad)
    found = opposite = 0
    label: str | None = None
    for name, rows in itertools.groupby(pairs, key=lambda pair: pair[0]):
        stream = (row for _, row in rows)
        head = list(itertools.islice(stream, _HEAD))
        mapping = guess_mapping(head, spec.columns, name)
        on_mapping(name, mapping)
        source = Path(name).name
        own = not spec.columns and all(_own_request(row, source, harmful) is not None for row in head)
        for number, row in enumerate(itertools.chain(head, stream), start=1):
            for request in _read_row(row, (name, number), source, mapping, harmful, own, on_bad, on_skip):
                found += 1
                if mapping.label and not own and harmful is not None and request.harmful is (not harmful):
                    opposite, label = opposite + 1, mapping.label
                yield request
    if not found:
        raise InputError(spec.path, "holds no request", "Check that its text column is filled, or name another column")
    if opposite == found:
        said, announced = ("harmless", "harmful") if harmful else ("harmful", "harmless")
        raise InputError(
            f"{spec.path}: column '{label}'",
            f"says {said} for all {found} requests, and the set is read as {announced}",
            f"Read it as {said} ({'with' if harmful else 'without'} --harmless), or name another label column",
        )


def _read_row(
    row: Row,
    place: tuple[str, int],
    source: str,
    mapping: ColumnMapping,
    harmful: bool | None,
    own: bool,
    on_bad: Callable[[InputError], None],
    on_skip: OnSkip,
) -> list[Request]:
    """The requests of one row: mostly one, several where its text is a list, none where it has no text."""
    kept = _own_request(row, source, harmful) if own else None
    if kept is not None:
        return [kept]
    try:
        found = _requests(flat(row), mapping, source, harmful)
    except InputError as error:
        on_bad(InputError(f"{place[0]}, row {place[1]}: {error.value}", error.rule, error.fix))
        return []
    if not found:
        on_skip("no text", f"{place[0]}, row {place[1]}")
    return found


def _own_request(row: Row, source: str, harmful: bool | None) -> Request | None:
    """A row as this project writes it, with all of its fields; None for any other row.

    What it leaves open, label and source, is filled as for any source.
    """
    if not row.keys() <= _OWN_FIELDS or "messages" not in row:
        return None
    try:
        request = Request.model_validate(row)
    except ValidationError:
        return None
    if not request.messages or request.messages[-1].role != "user" or not request.text.strip():
        return None
    label = request.harmful if request.harmful is not None else harmful
    return request.model_copy(
        update={
            "harmful": label,
            "source": request.source or source,
            "kind": request.kind or _kind(label),
        }
    )


def _kind(harmful: bool | None) -> str:
    return "" if harmful is None else "harmful" if harmful else "ordinary"


def _requests(row: Row, mapping: ColumnMapping, source: str, harmful: bool | None) -> list[Request]:
    label = harmful
    if mapping.label and not is_blank(row.get(mapping.label)):
        label = label_of(row[mapping.label], mapping.inverted)
    shared: dict[str, Any] = {
        "harmful": label,
        "categories": categories_of(row.get(mapping.category)) if mapping.category else (),
        "source": source,
        "kind": _kind(label),
    }
    answer = _answer(row.get(mapping.answer)) if mapping.answer else None
    if mapping.messages is not None:
        asked = [_conversation(row.get(mapping.messages), mapping.messages)]
    else:
        text = row.get(mapping.text or "")
        asked = [_asked(one, row, mapping) for one in (text if isinstance(text, list) else [text])]
    requests: list[Request] = []
    for messages in asked:
        replies: list[str] = []
        while messages and messages[-1].role != "user":
            replies.append(messages.pop().content)
        if messages:
            before = _before(row, mapping, messages)
            reply = answer if answer is not None else replies[-1] if replies else None
            requests.append(Request(messages=(*before, *messages), answer=reply, **shared))
    return requests


def _conversation(value: object, column: str) -> list[Message]:
    if is_blank(value):
        return []
    turns = turns_of(value)
    if turns is None:
        raise InputError(f"column '{column}'", "does not hold conversations", "It needs a list of role and content")
    return messages_of(turns)


def _asked(text: object, row: Row, mapping: ColumnMapping) -> list[Message]:
    """A prompt as messages: one user turn, unless it is a transcript."""
    if not isinstance(text, str) or is_blank(text):
        return []
    turns = transcript(text)
    if turns is not None:
        return messages_of(turns)
    text = sound(text).strip()
    alpaca = mapping.text is not None and mapping.text.lower() == "instruction"
    extra = row.get(mapping.context) if mapping.context else row.get("input") if alpaca else None
    if isinstance(extra, str) and not is_blank(extra):
        text = f"{text}\n\n{sound(extra).strip()}"
    return [Message(role="user", content=text)]


def _before(row: Row, mapping: ColumnMapping, messages: list[Message]) -> list[Message]:
    """The system prompt and the earlier turns of columns of their own."""
    before: list[Message] = []
    system = row.get(mapping.system) if mapping.system else None
    if isinstance(system, str) and not is_blank(system) and messages[0].role != "system":
        before.append(Message(role="system", content=sound(system).strip()))
    history = row.get(mapping.history) if mapping.history else None
    turns = None if is_blank(history) else pairs_of(history)
    return before + (messages_of(turns) if turns is not None else [])


def _answer(value: object) -> str | None:
    """The answer that a cell holds: a text, or the last assistant turn of a conversation."""
    turns = turns_of(value) if isinstance(value, list) else transcript(value) if isinstance(value, str) else None
    if turns is not None:
        said = [message.content for message in messages_of(turns) if message.role == "assistant"]
        return said[-1] if said else None
    return sound(value).strip() if isinstance(value, str) and not is_blank(value) else None
