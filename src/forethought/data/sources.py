"""Any refusal or instruction set as a stream of Requests, by a small column mapping that is guessed and shown."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from forethought.data.cells import (
    categories_of,
    flat,
    is_blank,
    label_of,
    messages_of,
    pairs_of,
    sound,
    transcript,
    turns_of,
)
from forethought.data.columns import ColumnMapping, guess_mapping, renamed
from forethought.data.files import Row
from forethought.data.readers import read_rows
from forethought.data.shipped import shipped_requests
from forethought.errors import InputError
from forethought.policy import Policy, load_policy
from forethought.progress import Bar, Progress
from forethought.records import Message, Record, Request, Split

SHIPPED = "shipped:"
_HEAD, _DIFFERENT = 200, 20
"""Rows from which the mapping is guessed; most others whose labels are other words."""
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


def _untold(what: object, which: object) -> None:
    """For a caller that wants to hear neither of mappings nor of rows left out."""


def load_requests(
    spec: SourceSpec,
    harmful: bool | None,
    on_mapping: OnMapping = _untold,
    on_skip: OnSkip = _untold,
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
        requests = _read(spec, harmful, on_mapping, on_skip)
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


def _read(spec: SourceSpec, harmful: bool | None, on_mapping: OnMapping, on_skip: OnSkip) -> Iterator[Request]:
    """The requests of all files of a source."""

    def bad(error: InputError) -> None:
        if not spec.skip_bad:
            raise error
        on_skip("malformed", f"{error.value}: {error.rule}")

    found = opposite = 0
    label: str | None = None
    for name, rows in itertools.groupby(read_rows(spec.path, bad), key=lambda pair: pair[0]):
        stream = (row for _, row in rows)
        head = list(itertools.islice(stream, _HEAD))
        mapping = guess_mapping(head, spec.columns, name)
        if mapping.one_sided:  # as in a file that is sorted by its labels
            rarer = _with_other_cells(spec, name, head, mapping.one_sided)
            mapping = guess_mapping([*head, *rarer], spec.columns, name)
        source = Path(name).name
        own = not spec.columns and all(_own_request(row, source, harmful) for row in head)
        on_mapping(name, mapping.model_copy(update={"unread": ()}) if own else mapping)
        for number, row in enumerate(itertools.chain(head, stream), start=1):
            place = f"{name}, row {number}"
            kept = _own_request(row, source, harmful) if own else None
            try:
                told = flat(renamed(row, mapping.turns) if mapping.turns else row)
                requests = [kept] if kept is not None else _requests(told, mapping, source, harmful)
            except InputError as error:
                bad(InputError(f"{place}: {error.value}", error.rule, error.fix))
                continue
            if not requests:
                on_skip("no text", place)
            for request in requests:
                found += 1
                if mapping.label and not own and {request.harmful, harmful} == {True, False}:
                    opposite, label = opposite + 1, mapping.label
                yield request
    if not found:
        raise InputError(spec.path, "holds no request", "Check that its text column is filled, or name another column")
    if opposite == found:
        said, announced, option = ("harmless", "harmful", "with") if harmful else ("harmful", "harmless", "without")
        fault = f"says {said} for all {found} requests, and the set is read as {announced}"
        fix = f"Read it as {said} ({option} --harmless), or name another label column"
        raise InputError(f"{spec.path}: column '{label}'", fault, fix)


def _with_other_cells(spec: SourceSpec, name: str, head: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """A row for each cell of these columns that none of the first rows has."""
    seen = {(column, str(row.get(column))) for row in map(flat, head) for column in columns}
    found: list[Row] = []
    files = itertools.groupby(read_rows(spec.path, lambda error: None), key=lambda pair: pair[0])
    _, rows = next(file for file in files if file[0] == name)
    for _, row in rows:
        cells = {(column, str(flat(row).get(column))) for column in columns}
        if not cells <= seen:
            seen |= cells
            found.append(row)
            if len(found) == _DIFFERENT:
                break
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
    filled = {"harmful": label, "source": request.source or source, "kind": request.kind or _kind(label)}
    return request.model_copy(update=filled)


def _kind(harmful: bool | None) -> str:
    return "" if harmful is None else "harmful" if harmful else "ordinary"


def _requests(row: Row, mapping: ColumnMapping, source: str, harmful: bool | None) -> list[Request]:
    label = harmful
    if mapping.label and (mapping.labels or not _is_missing(row.get(mapping.label), mapping)):
        label = label_of(row.get(mapping.label), mapping.inverted, mapping.labels)
    shared: dict[str, Any] = {
        "harmful": label,
        "categories": categories_of(row.get(mapping.category)) if mapping.category else (),
        "source": source,
        "kind": _kind(label),
    }
    answer = _answer(row.get(mapping.answer)) if mapping.answer else None
    if mapping.messages is not None:
        cell = row.get(mapping.messages)
        turns = [] if is_blank(cell) else turns_of(cell)
        if turns is None:
            column = f"column '{mapping.messages}'"
            raise InputError(column, "does not hold conversations", "It needs a list of role and content")
        asked = [messages_of(turns)]
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


def _is_missing(label: object, mapping: ColumnMapping) -> bool:
    written = isinstance(label, str) and label.strip().lower() == "none"
    return is_blank(label) and not (written and mapping.none_is_label)


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
    on_mapping: OnMapping = _untold,
    on_skip: OnSkip = _untold,
    both: bool = False,
) -> dict[Split, list[Request]]:
    """The requests of some sources by split; of a source with labels, those of the side asked for, or of `both`.

    Shipped sets are split by their families, other sources by content id, so that the
    split of a request never depends on the rest of the file. Raises InputError when a
    source has rows of one label only where the other was announced.
    """
    parts: dict[Split, list[Request]] = {"train": [], "dev": [], "test": []}
    only = None if both else harmful
    for spec in specs:
        if spec.path.startswith(SHIPPED):
            drawn = {request.id for request in load_requests(spec, harmful, only=only)}
            for split, part in parts.items():
                rows = shipped_requests(spec.path.removeprefix(SHIPPED), split)
                part += [request for request in rows if request.id in drawn]
            continue
        rows = list(load_requests(spec, harmful, on_mapping, on_skip, only=only))
        if not rows:
            fault = f"holds no {'harmful' if harmful else 'harmless'} request"
            raise InputError(spec.path, fault, "Check its label column, or list it on the other side")
        for row in rows:
            place = int(row.id, 16) / 16 ** len(row.id)
            split = "test" if place < held_out_share else "dev" if place < held_out_share + dev_share else "train"
            parts[split].append(row)
    return parts


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


# A source with its rules, and what was counted on the way.

_SHOWN_EVERY = 500
"""Rows between two words about how many there are."""


class Tally:
    """Counts of a stream, and a sample of it: every request has the same chance to be in it."""

    def __init__(self, samples: int = 5, seed: int = 0) -> None:
        self.total = 0
        self.by_label: Counter[bool | None] = Counter()
        self.by_rule: Counter[str] = Counter()
        """Harmful requests by the first of their rules."""
        self.repeated = 0
        """Requests that stand there before, word for word."""
        self._samples = samples
        self._rng = random.Random(seed)
        self._reservoir: list[tuple[int, Request]] = []
        self._seen: set[int] = set()

    @property
    def sample(self) -> list[Request]:
        """The sample, in the order of the stream."""
        return [request for _, request in sorted(self._reservoir, key=lambda entry: entry[0])]

    def through(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The same requests, counted as they pass."""
        for request in requests:
            self._add(request)
            yield request

    def _add(self, request: Request) -> None:
        self.by_label[request.harmful] += 1
        if request.harmful:
            self.by_rule.update(request.rules[:1])
        short = int(request.id, 16)  # six bytes of the content hash: a tenth of the text's memory
        self.repeated += short in self._seen
        self._seen.add(short)
        if len(self._reservoir) < self._samples:
            self._reservoir.append((self.total, request))
        else:
            place = self._rng.randrange(self.total + 1)  # algorithm R (Vitter 1985)
            if place < self._samples:
                self._reservoir[place] = (self.total, request)
        self.total += 1


class Reading:
    """The requests of a source, each with its rules; what was counted stands here when they have passed.

    Every pass reads the source anew, and memory does not grow with it.
    """

    def __init__(self, spec: SourceSpec, policy: Policy, harmful: bool | None, progress: Progress) -> None:
        self.policy = policy
        self._spec, self._harmful, self._progress = spec, harmful, progress
        self._start()

    def _start(self) -> None:
        self.tally = Tally()
        """Requests by label and by rule, and a sample of them."""
        self.skipped: Counter[str] = Counter()
        """Rows left out, by cause."""
        self.malformed: list[str] = []
        """Where malformed rows stand, and what is wrong with them."""
        self.classified = 0
        """Requests whose rules the classifier decided; those of the others stood in the source."""

    def __iter__(self) -> Generator[Request, None, None]:
        from forethought.data.classify import with_rules  # NumPy comes with it

        self._start()
        with self._progress.bar("rows") as bar:
            bar.total(None)
            rows = self._rows(bar)
            drawn = rows if self._spec.limit is None else hash_sample(rows, self._spec.limit)
            yield from self.tally.through(with_rules(drawn, self.policy, self._classify))

    def _rows(self, bar: Bar) -> Iterator[Request]:
        source = self._spec.model_copy(update={"limit": None})
        rows = load_requests(source, self._harmful, self._progress.mapping, self._skip)
        for number, row in enumerate(rows, start=1):
            if number % _SHOWN_EVERY == 0:
                bar.advance(_SHOWN_EVERY)
            yield row

    def _classify(self, count: int) -> None:
        self.classified += count

    def _skip(self, cause: str, where: str) -> None:
        self.skipped[cause] += 1
        if cause == "malformed":
            self.malformed.append(where)


def read_requests(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    harmful: bool | None = True,
    limit: int | None = None,
    skip_bad: bool = False,
    policy: Policy | str | Path | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Reads a file, a folder, a set of the hub or a shipped one (`shipped:harmful`), in any of the formats known.

    `columns` names columns by noun (`{"text": "my_column"}`) where the guess is wrong. `harmful` is said of rows
    without a label of their own. At most `limit` requests are drawn, by content hash. `skip_bad` leaves malformed rows
    out; else the first raises InputError, when it is reached.
    """
    spec = SourceSpec(path=str(source), columns=dict(columns or {}), limit=limit, skip_bad=skip_bad)
    rules = policy if isinstance(policy, Policy) else load_policy(policy)
    return Reading(spec, rules, harmful, progress or Progress())
