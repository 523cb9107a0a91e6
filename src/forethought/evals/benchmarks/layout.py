"""A layout is data: a YAML file that says which column of a public benchmark holds what, and how it is recognised."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from forethought.data.readers import Row
from forethought.errors import ConfigError, InputError
from forethought.records import Record
from forethought.yamlfile import parse_yaml, read_text

Label = Literal["harmful", "harmless"]
_PAGE = "docs/benchmarks.md"
_INDEX = {"", "id", "index", "no", "number", "unnamed0"}
"""Columns that only number the rows: they say nothing about a layout."""


def column_key(column: str) -> str:
    """A column's name without case and separators: `ContextString` and `context_string` are one."""
    return re.sub(r"[\W_]+", "", column.lower())


def _sound_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a regular expression ({error})") from None
    return pattern


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
    values: dict[str, Label]
    """Pattern for the whole cell, in lower case, to its label. A cell that fits none leaves the row unlabelled."""

    _checked = field_validator("values")(lambda values: {_sound_pattern(key): label for key, label in values.items()})


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
    files: str = ""
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
    label_by_name: dict[str, Label] = Field(default_factory=dict)
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

    _checked_name = field_validator("files")(_sound_pattern)
    _checked_names = field_validator("label_by_name")(
        lambda values: {_sound_pattern(key): label for key, label in values.items()}
    )

    def named_by(self, name: str) -> bool:
        """Whether a file's name is one by which the set is published."""
        return bool(self.files) and re.search(self.files, name.lower()) is not None

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
    folder = resources.files("forethought.evals.benchmarks").joinpath("layouts")
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
