"""A layout is data: a YAML file that says which column of a public benchmark holds what, and how it is recognised.

By a layout, rows become behaviours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from forethought.data.benchmarks.behaviors import CONTEXT_END, Behavior
from forethought.data.columns import categories_of, flat, is_blank, messages_of, sound, turns_of
from forethought.data.files import Row
from forethought.errors import ConfigError, InputError
from forethought.records import Message, Record, Request
from forethought.yamlfile import parse_yaml, read_text

Label = Literal["harmful", "harmless"]
_PAGE = "docs/benchmarks.md"
_INDEX = {"", "id", "index", "no", "number", "unnamed0"}
"""Columns that only number the rows: they say nothing about a layout."""
Cells = dict[str, Any]
"""The filled cells of a row, by `column_key`."""


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

    def named_by(self, name: str) -> bool:
        """Whether a file's name is one by which the set is published."""
        return self.files is not None and self.files.search(name.lower()) is not None

    def check(self, rows: Sequence[Row], name: str) -> None:
        """Raises InputError where rows lack all columns that could hold the request."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        wanted = (*self.request, *self.languages)
        if not {column_key(column) for column in wanted} & {column_key(column) for column in columns}:
            raise InputError(
                name,
                f"is not of the layout '{self.name}': it has {', '.join(columns)}",
                f"The layout needs a column {' or '.join(wanted)}; leave --layout out to have the columns guessed",
            )


@cache
def layouts() -> dict[str, Layout]:
    """All layouts that ship, by name."""
    folder = resources.files("forethought.data.benchmarks").joinpath("layouts")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    found = [_parse(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {layout.name: layout for layout in found}


def find_layout(name: str) -> Layout:
    """A layout by name, or from a YAML file of the user's own. Raises ConfigError for one that isn't there or valid."""
    if name.endswith((".yaml", ".yml")):
        return _parse(read_text(Path(name), "layout", "Give a layout's file or name"), name)
    if name not in layouts():
        raise ConfigError(f"layout '{name}'", "there is no such layout", f"Use a .yaml file, or {', '.join(layouts())}")
    return layouts()[name]


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


def _parse(text: str, name: str) -> Layout:
    layout = parse_yaml(text, name, "layout", Layout, "name, title and request", _PAGE)
    if bool(layout.request) is bool(layout.languages):
        raise ConfigError(name, "needs one of 'request' and 'languages'", f"See {_PAGE}")
    return layout


class Place(NamedTuple):
    """Where rows come from, and what the user says of them."""

    source: str
    """Name of the file or hub set; the layout's patterns are sought in it."""
    harmful: bool | None = None
    """What the user says of all rows; a column of the benchmark's own wins."""


def cells_of(row: Row) -> Cells:
    """The filled cells of a row; of two columns with one key the first wins."""
    return {column_key(column): value for column, value in reversed(flat(row).items()) if not is_blank(value)}


def describes_file(layout: Layout, row: Row) -> bool:
    """Whether a row is the file's description of itself, as the parameters of JailbreakBench's artefacts are."""
    if not layout.header_rows:
        return False
    known = {column_key(column) for signature in layout.signatures for column in signature.columns}
    return not known & {column_key(column) for column in row}


def requests_a_row(layout: Layout, rows: Iterable[Row]) -> int:
    """How many requests a full row of a file has: one, or one for each of its columns of a language."""
    there = {column_key(column) for row in rows for column in row}
    return sum(column_key(column) in there for column in layout.languages) or 1


def behaviors_of(layout: Layout, cells: Cells, place: Place) -> list[Behavior]:
    """The behaviours of one row: one, one a language, or none where nothing is asked and the layout allows that.

    Ids are those of the benchmark, not yet told apart from other rows'. Raises InputError with the
    fault as its rule for a malformed row.
    """
    if layout.languages:
        asked = [(code, cells.get(column_key(column))) for column, code in layout.languages.items()]
        found = [(code, value) for code, value in asked if value is not None]
    else:
        found = [("", value) for value in [_first(cells, layout.request)] if value is not None]
    if not found and layout.blank == "malformed":
        raise _malformed(f"has no text in {' or '.join((*layout.request, *layout.languages))}")
    return [_behavior(layout, cells, place, value, code) for code, value in found]


def _behavior(layout: Layout, cells: Cells, place: Place, value: object, language: str) -> Behavior:
    seed = _text(_first(cells, layout.seed))
    messages = _messages(value, layout.listed)
    text = messages[-1].content.strip()
    disguise = _disguise(layout, cells, language, text, seed)
    context = _text(_first(cells, layout.context)) or ""
    needed = any(_word(cells.get(column_key(column))) == word for column, word in layout.context_needed.items())
    if needed and not context:
        raise _malformed(f"has no text in {' or '.join(layout.context)}, without which it can't be asked")
    if disguise is None or language:  # a jailbreak stays as it is, to the space
        text = f"{context}{CONTEXT_END}{text}" if context else text
        messages = (*messages[:-1], Message(role="user", content=text))
    harmful = _harmful(layout, cells, place)
    request = Request(
        messages=messages,
        harmful=harmful,
        categories=_categories(cells, layout.category),
        source=place.source,
        kind=_kind(layout, cells, harmful),
        operator=disguise,
        seed_text=seed if disguise else None,
    )
    family = _joined(cells, layout.family)
    own = _joined(cells, layout.id)
    family = f"{layout.name}:{family}" if family else request.seed_id if seed else ""
    tags = {tag: _words(cells[column_key(name)]) for tag, name in layout.tags.items() if column_key(name) in cells}
    return Behavior(
        id="/".join(part for part in (own or request.id, language if own else "") if part),
        benchmark=layout.name,
        request=request.model_copy(update={"family": family}),
        context=context,
        reference=_text(_first(cells, layout.reference)),
        tags=tags | ({"language": language} if language else {}),
    )


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


def _disguise(layout: Layout, cells: Cells, language: str, text: str, seed: str | None) -> str | None:
    """Name of the attack that a ready-made prompt is; None for a request as it is."""
    if language:
        return None if seed is None or text == seed else f"translate:{language}"
    if text == seed:
        return None
    named = categories_of(_first(cells, layout.attack))
    return "+".join(named) or layout.attack_default or None


def _harmful(layout: Layout, cells: Cells, place: Place) -> bool | None:
    """What the row says, else the user, else the file's name, else the layout."""
    for rule in layout.labels:
        value = _first(cells, rule.columns)
        if value is not None:
            word = _word(value)
            return _is_harmful(next((label for cell, label in rule.values.items() if cell.fullmatch(word)), None))
    if place.harmful is not None:
        return place.harmful
    named = {label for pattern, label in layout.label_by_name.items() if pattern.search(place.source.lower())}
    if named:
        return _is_harmful(named.pop()) if len(named) == 1 else None
    return _is_harmful(layout.otherwise)


def _is_harmful(label: Label | None) -> bool | None:
    return None if label is None else label == "harmful"


def _kind(layout: Layout, cells: Cells, harmful: bool | None) -> str:
    for rule in layout.kinds:
        kind = rule.values.get(_word(cells.get(column_key(rule.column))))
        if kind is not None:
            return kind
    return "" if harmful is None else "harmful" if harmful else layout.harmless_kind


def _first(cells: Cells, columns: Iterable[str]) -> Any:
    return next((cells[column_key(column)] for column in columns if column_key(column) in cells), None)


def _joined(cells: Cells, columns: Iterable[str]) -> str:
    return "/".join(_words(cells[column_key(column)]) for column in columns if column_key(column) in cells)


def _categories(cells: Cells, columns: Iterable[str]) -> tuple[str, ...]:
    names = [name for column in columns for name in categories_of(cells.get(column_key(column)))]
    return tuple(dict.fromkeys(names))


def _text(value: object) -> str | None:
    return sound(value).strip() if isinstance(value, str) else None


def _words(value: object) -> str:
    """A cell as one short text; a whole number stays one, whatever type the file gave it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else sound(str(value)).strip()


def _word(value: object) -> str:
    return _words(value).lower().removesuffix(".0")


def _malformed(rule: str) -> InputError:
    return InputError("row", rule, "Mend the row, or skip such rows with --skip-bad")
