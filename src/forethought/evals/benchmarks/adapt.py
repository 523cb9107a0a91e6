"""Rows as behaviours, by a layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from forethought.data.columns import categories_of, flat, is_blank, messages_of, sound, turns_of
from forethought.data.readers import Row
from forethought.errors import InputError
from forethought.evals.benchmarks.layout import Label, Layout, column_key
from forethought.evals.benchmarks.records import CONTEXT_END, Behavior
from forethought.records import Message, Request

Cells = dict[str, Any]
"""The filled cells of a row, by `column_key`."""


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
            return _is_harmful(_matching(rule.values, _word(value)))
    if place.harmful is not None:
        return place.harmful
    named = {label for pattern, label in layout.label_by_name.items() if re.search(pattern, place.source.lower())}
    if named:
        return _is_harmful(named.pop()) if len(named) == 1 else None
    return _is_harmful(layout.otherwise)


def _matching(values: Mapping[str, Label], word: str) -> Label | None:
    return next((label for pattern, label in values.items() if re.fullmatch(pattern, word)), None)


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
