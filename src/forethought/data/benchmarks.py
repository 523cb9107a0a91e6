"""Any benchmark as behaviours: by a layout that is recognised or named, else by the mapping of `data.sources`.

A layout is data: a YAML file that says which column of a public benchmark holds what, and how it is recognised.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from forethought.data.behaviors import CONTEXT_END, Behavior, Benchmark
from forethought.data.cells import categories_of, flat, is_blank, messages_of, sound, turns_of
from forethought.data.columns import ColumnMapping
from forethought.data.files import Row
from forethought.data.readers import BY_LIBRARY, read_numbered, read_rows
from forethought.data.sources import SHIPPED, SourceSpec, load_requests
from forethought.errors import ConfigError, InputError
from forethought.records import Message, Record, Request
from forethought.yamlfile import shipped_or_own, shipped_texts

_HEAD = 200
"""Rows from which a layout is recognised."""
Label = Literal["harmful", "harmless"]
_PAGE = "docs/datasets.md"
_SHIPPED = "data/layouts"
_INDEX = {"", "id", "index", "no", "number", "unnamed0"}
"""Columns that only number the rows: they say nothing about a layout."""


def column_key(column: str) -> str:
    """A column's name without case and separators: `ContextString` and `context_string` are one."""
    return re.sub(r"[\W_]+", "", column.lower())


class Signature(Record):
    """Columns by which a file of the layout is recognised; one of a layout's signatures is enough."""

    columns: tuple[str, ...] = Field(min_length=1)
    """All of them have to be there."""
    named: bool = False
    """True where other sets have these columns too, so that the file's name has to fit as well."""
    only: bool = False
    """True where a file with further columns is something else."""
    lists: tuple[str, ...] = ()
    """Columns among them that hold lists."""

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether rows have these columns."""
        cells = {column_key(column): value for row in reversed(rows) for column, value in row.items()}
        wanted = {column_key(column) for column in self.columns}
        if not wanted <= cells.keys() or (self.only and cells.keys() - wanted - _INDEX):
            return False
        return all(isinstance(cells[column_key(column)], list) for column in self.lists)


class LabelRule(Record):
    """What the cells of a column say about a row."""

    columns: tuple[str, ...] = Field(min_length=1)
    """The first of them that is filled decides."""
    values: dict[re.Pattern[str], Label]
    """Pattern for the whole cell, in lower case, to its label. A cell that fits none leaves the row unlabelled."""


class KindRule(Record):
    """Rows that are reported as a group of their own, whatever their label."""

    column: str
    values: dict[str, str]
    """Cell, in lower case, to kind."""


class Layout(Record):
    """Which column of a benchmark holds what.

    Where several columns are named for one thing, the first filled one is it. Names of columns are
    compared without case and separators.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    paper: str = ""
    files: re.Pattern[str] | None = None
    """Pattern that is sought in the lower-case name of the file or hub set."""
    signatures: tuple[Signature, ...] = ()
    """Empty: the layout is never recognised, only named."""
    request: tuple[str, ...] = ()
    languages: dict[str, str] = Field(default_factory=dict)
    """Instead of `request`: column to language code; each filled one is a request of its own."""
    listed: bool = False
    """Whether the request stands in a list of one text."""
    seed: tuple[str, ...] = ()
    """The undisguised request, where the request is a disguise of it."""
    attack: tuple[str, ...] = ()
    """Name of the disguise."""
    attack_default: str = ""
    """Name of the disguise where no column has it."""
    context: tuple[str, ...] = ()
    context_needed: dict[str, str] = Field(default_factory=dict)
    """Column to the cell, in lower case, of rows that are malformed without a context."""
    id: tuple[str, ...] = ()
    """Columns that make up the id, joined by `/`."""
    family: tuple[str, ...] = ()
    """Columns of what translations or styles of one request share."""
    category: tuple[str, ...] = ()
    """All of these that are filled."""
    reference: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    """Tag to column."""
    labels: tuple[LabelRule, ...] = ()
    """The first whose column is filled decides."""
    label_by_name: dict[re.Pattern[str], Label] = Field(default_factory=dict)
    """Pattern that is sought in the file's name to the label of its rows; two that disagree say nothing."""
    otherwise: Label | None = None
    """Label of rows of which neither a column, the user nor the file's name says anything."""
    harmless_kind: Literal["ordinary", "lookalike"] = "lookalike"
    """How harmless rows are reported."""
    kinds: tuple[KindRule, ...] = ()
    blank: Literal["malformed", "left out"] = "malformed"
    """What a row without a request is."""
    header_rows: bool = False
    """Whether an object that has no column of a signature describes the file: its values hold for all rows."""

    @model_validator(mode="after")
    def _one_place_of_the_request(self) -> Self:
        if bool(self.request) is bool(self.languages):
            raise ValueError("needs one of 'request' and 'languages'")
        return self

    def named_by(self, name: str) -> bool:
        """Whether a file's name is one by which the set is published."""
        return self.files is not None and self.files.search(name.lower()) is not None

    def describes_file(self, row: Row) -> bool:
        """Whether a row is the file's description of itself, as the parameters of JailbreakBench's artefacts are."""
        known = {column_key(column) for signature in self.signatures for column in signature.columns}
        return self.header_rows and not known & {column_key(column) for column in row}

    def check(self, rows: Sequence[Row], name: str) -> None:
        """Raises InputError where rows lack all columns that could hold the request."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        wanted = (*self.request, *self.languages)
        if not set(map(column_key, wanted)) & set(map(column_key, columns)):
            fault = f"is not of the layout '{self.name}': it has {', '.join(columns)}"
            needs = f"The layout needs a column {' or '.join(wanted)}"
            raise InputError(name, fault, f"{needs}; leave --layout out to have the columns guessed")


@cache
def layouts() -> dict[str, Layout]:
    """All layouts that ship, by name."""
    found = map(find_layout, shipped_texts(_SHIPPED))
    return {layout.name: layout for layout in found}


def find_layout(name: str) -> Layout:
    """A layout by name, or from a YAML file of the user's own. Raises ConfigError for one that isn't there or valid."""
    return shipped_or_own(name, _SHIPPED, "layout", Layout, "name, title and request", _PAGE)


def detect_layout(rows: Sequence[Row], name: str) -> Layout | None:
    """The layout of a file by its first rows; None where no layout fits.

    `name` is that of the file or hub set. A layout whose name fits goes before others, then the
    one that asks for more columns.
    """
    best, found = (False, 0), None
    for layout in layouts().values():
        named = layout.named_by(name)
        fitting = [s for s in layout.signatures if (named or not s.named) and s.fits(rows)]
        rank = (named, max((len(signature.columns) for signature in fitting), default=0))
        if fitting and rank > best:
            best, found = rank, layout
    return found


class _Cells:
    """The filled cells of a row, by `column_key`."""

    def __init__(self, *rows: Row) -> None:
        """A later row wins; of two columns of one row with the same key, the first does."""
        filled = ((column_key(name), cell) for row in rows for name, cell in reversed(flat(row).items()))
        self._by_key = {key: cell for key, cell in filled if not is_blank(cell)}

    def all(self, columns: Iterable[str]) -> list[Any]:
        """What stands in those of the columns that are filled."""
        return [self._by_key[key] for key in map(column_key, columns) if key in self._by_key]

    def first(self, columns: Iterable[str]) -> Any:
        """What the first of the columns that is filled holds; None where none is."""
        return next(iter(self.all(columns)), None)

    def text(self, columns: Iterable[str]) -> str | None:
        """The first filled cell, where it is a text."""
        value = self.first(columns)
        return sound(value).strip() if isinstance(value, str) else None

    def joined(self, columns: Iterable[str]) -> str:
        """All filled cells as one short text."""
        return "/".join(map(_words, self.all(columns)))

    def categories(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The categories that stand in the columns, each once."""
        return tuple(dict.fromkeys(name for value in self.all(columns) for name in categories_of(value)))


def _words(value: object) -> str:
    """A cell as one short text; a whole number stays one, whatever type the file gave it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else sound(str(value)).strip()


def _word(value: object) -> str:
    return _words(value).lower().removesuffix(".0")


def _malformed(rule: str) -> InputError:
    return InputError("row", rule, "Mend the row, or skip such rows with --skip-bad")


class _Rows:
    """The rows of one file by a layout."""

    def __init__(self, layout: Layout, source: str, harmful: bool | None) -> None:
        """`source` is the name of the file or hub set, in which the layout's patterns are sought; `harmful` is what
        the user says of all rows: a column of the benchmark's own wins."""
        self._layout, self._source, self._harmful = layout, source, harmful

    def behaviors(self, cells: _Cells) -> list[Behavior]:
        """The behaviours of one row: one, one a language, or none where nothing is asked and the layout allows that.

        Ids are those of the benchmark, not yet told apart from other rows'. Raises InputError with the
        fault as its rule for a malformed row.
        """
        layout = self._layout
        if layout.languages:
            asked = [(code, cells.first([column])) for column, code in layout.languages.items()]
        else:
            asked = [("", cells.first(layout.request))]
        found = [(code, value) for code, value in asked if value is not None]
        if not found and layout.blank == "malformed":
            raise _malformed(f"has no text in {' or '.join((*layout.request, *layout.languages))}")
        return [self._behavior(cells, value, code) for code, value in found]

    def _behavior(self, cells: _Cells, value: object, language: str) -> Behavior:
        layout = self._layout
        seed = cells.text(layout.seed)
        messages = _messages(value, layout.listed)
        text = messages[-1].content.strip()
        if text == seed:  # a request as it is; else a ready-made prompt, whose attack is named
            disguise = None
        elif language:
            disguise = None if seed is None else f"translate:{language}"
        else:
            disguise = "+".join(categories_of(cells.first(layout.attack))) or layout.attack_default or None
        context = cells.text(layout.context) or ""
        needed = any(_word(cells.first([column])) == word for column, word in layout.context_needed.items())
        if needed and not context:
            raise _malformed(f"has no text in {' or '.join(layout.context)}, without which it can't be asked")
        if disguise is None or language:  # a jailbreak stays as it is, to the space
            text = f"{context}{CONTEXT_END}{text}" if context else text
            messages = (*messages[:-1], Message(role="user", content=text))
        harmful = self._label(cells)
        kinds = [rule.values.get(_word(cells.first([rule.column]))) for rule in layout.kinds]
        plain_kind = "" if harmful is None else "harmful" if harmful else layout.harmless_kind
        request = Request(
            messages=messages,
            harmful=harmful,
            categories=cells.categories(layout.category),
            source=self._source,
            kind=next((kind for kind in kinds if kind is not None), plain_kind),
            operator=disguise,
            seed_text=seed if disguise else None,
        )
        family, own = cells.joined(layout.family), cells.joined(layout.id)
        family = f"{layout.name}:{family}" if family else request.seed_id if seed else ""
        tags = {tag: _words(cell) for tag, column in layout.tags.items() for cell in cells.all([column])}
        return Behavior(
            id="/".join(part for part in (own or request.id, language if own else "") if part),
            benchmark=layout.name,
            request=request.model_copy(update={"family": family}),
            context=context,
            reference=cells.text(layout.reference),
            tags=tags | ({"language": language} if language else {}),
        )

    def _label(self, cells: _Cells) -> bool | None:
        """What the row says, else the user, else the file's name, else the layout."""
        label = self._layout.otherwise
        for rule in self._layout.labels:
            value = cells.first(rule.columns)
            if value is not None:
                word = _word(value)
                label = next((label for cell, label in rule.values.items() if cell.fullmatch(word)), None)
                return None if label is None else label == "harmful"
        if self._harmful is not None:
            return self._harmful
        by_name = self._layout.label_by_name.items()
        named = {label for pattern, label in by_name if pattern.search(self._source.lower())}
        if named:
            label = named.pop() if len(named) == 1 else None
        return None if label is None else label == "harmful"


def _messages(value: object, listed: bool) -> tuple[Message, ...]:
    """What a cell asks: one text, or a conversation up to its last user turn."""
    if listed and isinstance(value, str):
        value = list(categories_of(value))  # a list that was written as text
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        if len(value) != 1:
            raise _malformed(f"has {len(value)} texts where the layout has one")
        value = value[0]
    if isinstance(value, str):
        return (Message(role="user", content=sound(value)),)
    turns = turns_of(value)
    if turns is None:
        raise _malformed(f"has a request that is no text ({type(value).__name__})")
    messages = messages_of(turns)
    while messages and messages[-1].role != "user":
        messages.pop()
    if not messages:
        raise _malformed("has a conversation without a user's turn")
    return tuple(messages)


def load_benchmark(
    source: str,
    layout: str | None = None,
    columns: dict[str, str] | None = None,
    harmful: bool | None = None,
    skip_bad: bool = False,
) -> Benchmark:
    """Reads a benchmark: a file, folder, glob, `wheel::member`, `pkg:NAME/path`, `hub:NAME@split` or `shipped:SET`.

    `layout`: a name or a YAML file; None recognises it by its columns. `columns`: what holds what,
    as for any dataset, instead of a layout. `harmful`: what the user says of rows of which the
    benchmark says nothing; such rows are unlabelled where it is None. `skip_bad`: malformed rows
    are left out and named in the result. Raises InputError for a source that can't be read or asks
    nothing, and for a malformed row unless `skip_bad`; ConfigError for an unknown layout.
    """
    if layout is not None and columns:
        fix = "Give one of the two, or write a layout of your own (docs/datasets.md)"
        raise ConfigError(f"--layout {layout}", "columns are named as well", fix)
    chosen = None if columns or source.startswith(SHIPPED) else _layout(source, layout)
    found = Benchmark(chosen.name if chosen else benchmark_name(source), chosen.name if chosen else None)
    if chosen is None:
        _read_mapped(SourceSpec(path=source, columns=columns or {}, skip_bad=skip_bad), harmful, found)
    else:
        _read_laid_out(source, chosen, harmful, skip_bad, found)
    if not found.behaviors:
        rule = "holds no request"
        if found.malformed:
            rule += f"; {len(found.malformed)} rows are malformed, the first is {found.malformed[0]}"
        raise InputError(source, rule, "Check that its request column is filled, or name another --layout")
    return found


def benchmark_name(source: str) -> str:
    """A short name for a source without a layout: letters, digits and underscores."""
    by_name = source.startswith((*BY_LIBRARY, SHIPPED))
    stem = source.partition(":")[2] if by_name else Path(source).name.partition(".")[0]
    return re.sub(r"\W+", "_", stem.lower()).strip("_") or "benchmark"


def _layout(source: str, named: str | None) -> Layout | None:
    if named is not None:
        return find_layout(named)
    # What is malformed is told by the reading proper, with its line.
    pairs = read_rows(source, lambda error: None)
    first = next(pairs, None)
    if first is None:
        return None
    rows = [row for name, row in itertools.islice(pairs, _HEAD - 1) if name == first[0]]
    return detect_layout([first[1], *rows], _told_name(source, first[0]))


def _told_name(source: str, name: str) -> str:
    """The name that tells what a file is: its own, without folders; of a hub set all, since its split counts."""
    return source if source.startswith(BY_LIBRARY) else Path(name).name


def _read_laid_out(source: str, layout: Layout, harmful: bool | None, skip_bad: bool, found: Benchmark) -> None:
    def on_bad(error: InputError) -> None:
        if not skip_bad:
            raise error
        found.malformed.append(f"{error.value}: {error.rule}")

    for name, numbered in itertools.groupby(read_numbered(source, on_bad), key=lambda found: found[0]):
        stream = ((line, row) for _, line, row in numbered)
        head, fault = _head(stream)
        if fault is not None and not head:
            raise fault
        there = [row for _, row in head]
        layout.check(there, name)
        found.columns.append(f"{name}: {_used_columns(layout, there)}")
        rows = _Rows(layout, _told_name(source, name), harmful)
        # A full row has one request, or one for each of its columns of a language.
        keys = {column_key(column) for row in there for column in row}
        asked = sum(column_key(column) in keys for column in layout.languages) or 1
        shared: Row = {}
        for number, (line, row) in enumerate(itertools.chain(head, stream), start=1):
            if layout.describes_file(row):
                shared |= row
                continue
            try:
                behaviors = rows.behaviors(_Cells(shared, row))
            except InputError as error:
                on_bad(InputError(f"{name}, {f'line {line}' if line else f'row {number}'}", error.rule, error.fix))
                continue
            found.without_text += asked - len(behaviors)
            for behavior in behaviors:
                found.add(behavior)
        if fault is not None:
            raise fault


def _head(rows: Iterator[tuple[int, Row]]) -> tuple[list[tuple[int, Row]], InputError | None]:
    """The first rows, and the error that ended them: it is raised once the rows before it have had their turn."""
    head: list[tuple[int, Row]] = []
    try:
        for row in itertools.islice(rows, _HEAD):
            head.append(row)
    except InputError as error:
        return head, error
    return head, None


def _used_columns(layout: Layout, rows: list[Row]) -> str:
    """The layout, and which of the columns of a file it uses for what."""
    there = {column_key(column): column for row in rows for column in flat(row)}
    nouns = {
        "request": (*layout.request, *layout.languages),
        "seed": layout.seed,
        "attack": layout.attack,
        "context": layout.context,
        "category": layout.category,
        "label": tuple(column for rule in layout.labels for column in rule.columns),
        "reference": layout.reference,
        "id": layout.id,
    }
    used = {noun: [there[column_key(c)] for c in wanted if column_key(c) in there] for noun, wanted in nouns.items()}
    told = ", ".join(f"{noun}={'+'.join(columns)}" for noun, columns in used.items() if columns)
    return f"layout {layout.name}: {told}"


def _read_mapped(spec: SourceSpec, harmful: bool | None, found: Benchmark) -> None:
    def on_skip(cause: str, where: str) -> None:
        if cause == "malformed":
            found.malformed.append(where)
        else:
            found.without_text += 1

    def on_mapping(file: str, mapping: ColumnMapping) -> None:
        found.columns.append(f"{file}: {mapping}")

    for request in load_requests(spec, harmful, on_mapping, on_skip):
        # An answer of the file's own is something to compare with, never what the model said.
        asked = request.model_copy(update={"answer": None})
        found.add(Behavior(id=request.id, benchmark=found.name, request=asked, reference=request.answer))
