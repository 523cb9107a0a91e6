"""Any refusal or instruction set as Requests, by a small column mapping that is guessed and shown."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from forethought.data.files import Row
from forethought.data.readers import read_rows
from forethought.data.shipped import shipped_requests
from forethought.errors import InputError
from forethought.records import Message, Record, Request, Split

SHIPPED = "shipped:"
_HEAD = 200
"""Rows from which the mapping is guessed."""
OnSkip = Callable[[str, str], None]
"""Called for each row that is left out with a cause, `no text` or `malformed`, and where it stands."""
OnMapping = Callable[[str, ColumnMapping], None]
"""Told the name of each file and which of its columns hold what."""
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
    on_mapping: OnMapping | None = None,
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
        requests = _Reader(spec, harmful, on_skip or (lambda cause, where: None)).requests(on_mapping)
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


class _Reader:
    """Reads the rows of one source as requests."""

    def __init__(self, spec: SourceSpec, harmful: bool | None, on_skip: OnSkip) -> None:
        self._spec, self._harmful, self._on_skip = spec, harmful, on_skip

    def requests(self, on_mapping: OnMapping | None) -> Iterator[Request]:
        """The requests of all files of the source."""
        found = opposite = 0
        label: str | None = None
        pairs = read_rows(self._spec.path, self._bad)
        for name, rows in itertools.groupby(pairs, key=lambda pair: pair[0]):
            stream = (row for _, row in rows)
            head = list(itertools.islice(stream, _HEAD))
            mapping = guess_mapping(head, self._spec.columns, name)
            if on_mapping is not None:
                on_mapping(name, mapping)
            source = Path(name).name
            own = not self._spec.columns and all(_own_request(row, source, self._harmful) for row in head)
            for number, row in enumerate(itertools.chain(head, stream), start=1):
                kept = _own_request(row, source, self._harmful) if own else None
                for request in self._of_row(row, f"{name}, row {number}", source, mapping) if kept is None else [kept]:
                    found += 1
                    if mapping.label and not own and {request.harmful, self._harmful} == {True, False}:
                        opposite, label = opposite + 1, mapping.label
                    yield request
        if not found:
            raise InputError(
                self._spec.path, "holds no request", "Check that its text column is filled, or name another column"
            )
        if opposite == found:
            said, announced = ("harmless", "harmful") if self._harmful else ("harmful", "harmless")
            option = "with" if self._harmful else "without"
            raise InputError(
                f"{self._spec.path}: column '{label}'",
                f"says {said} for all {found} requests, and the set is read as {announced}",
                f"Read it as {said} ({option} --harmless), or name another label column",
            )

    def _bad(self, error: InputError) -> None:
        if not self._spec.skip_bad:
            raise error
        self._on_skip("malformed", f"{error.value}: {error.rule}")

    def _of_row(self, row: Row, place: str, source: str, mapping: ColumnMapping) -> list[Request]:
        """Mostly one, several where the row's text is a list, none where it has no text."""
        try:
            found = _requests(flat(row), mapping, source, self._harmful)
        except InputError as error:
            self._bad(InputError(f"{place}: {error.value}", error.rule, error.fix))
            return []
        if not found:
            self._on_skip("no text", place)
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


# Requests as train, dev and test, by family or content; and samples drawn by content.


def load_split(
    specs: Sequence[SourceSpec],
    harmful: bool,
    held_out_share: float,
    dev_share: float,
    on_mapping: OnMapping | None = None,
    on_skip: OnSkip | None = None,
) -> dict[Split, list[Request]]:
    """The requests of some sources by split; of a source with labels, those of the side asked for.

    Shipped sets are split by their families, other sources by content id, so that the
    split of a request never depends on the rest of the file. Raises InputError when a
    source has rows of one label only where the other was announced.
    """
    parts: dict[Split, list[Request]] = {"train": [], "dev": [], "test": []}
    for spec in specs:
        if spec.path.startswith(SHIPPED):
            drawn = {request.id for request in load_requests(spec, harmful)}
            for split in parts:
                rows = shipped_requests(spec.path.removeprefix(SHIPPED), split)
                parts[split] += [request for request in rows if request.id in drawn]
            continue
        rows = list(load_requests(spec, harmful, on_mapping, on_skip, only=harmful))
        if not rows:
            kind = "harmful" if harmful else "harmless"
            raise InputError(
                spec.path, f"holds no {kind} request", "Check its label column, or list it on the other side"
            )
        for row in rows:
            parts[_split_of(row, held_out_share, dev_share)].append(row)
    return parts


def _split_of(request: Request, held_out_share: float, dev_share: float) -> Split:
    place = int(request.id, 16) / 16 ** len(request.id)
    return "test" if place < held_out_share else "dev" if place < held_out_share + dev_share else "train"


def cap_per_rule(requests: Sequence[Request], most: int) -> list[Request]:
    """At most `most` harmful requests of each (source, rule); which ones depends on their content alone."""
    groups: dict[tuple[str, str], list[Request]] = defaultdict(list)
    for request in requests:
        groups[(request.source, request.rules[0] if request.rules else "")].append(request)
    return [request for group in groups.values() for request in sample(group, most)]


def sample(requests: Sequence[Request], most: int, seed: int = 0) -> list[Request]:
    """At most `most` requests, drawn by content hash: adding a request moves few others. Keeps their order."""
    if len(requests) <= most:
        return list(requests)
    rank = {r.id: hashlib.sha256(f"{seed}:{r.id}".encode()).hexdigest() for r in requests}
    chosen = set(sorted(rank, key=rank.__getitem__)[:most])
    return [request for request in requests if request.id in chosen]


def within_budget(lengths: Sequence[int], budget: int, seed: int = 0) -> list[int]:
    """Places of the rows that fit a token budget, drawn at random, in their first order. `lengths` are in tokens."""
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    spent = 0
    for place in order:
        if spent + lengths[place] <= budget:
            chosen.append(place)
            spent += lengths[place]
    return sorted(chosen)
