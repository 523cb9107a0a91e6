"""JSON and JSON lines as rows, of any nesting. Small files are judged whole; large ones are streamed (ijson)."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

import ijson

from forethought.data.files import (
    NOT_UTF_8,
    WORDS,
    DataFile,
    Numbered,
    Row,
    column_names,
    is_damaged,
    is_header,
    words_in,
)
from forethought.errors import InputError

WHOLE = 32 << 20
"""Largest file, in characters, that is read at once."""
_FEW = 50
"""Items of each list and object that stand for the rest when a large file's shape is judged."""
_TABLES = 16
"""Most lists that are streamed one after another; each takes a pass over the file."""
_LOOK = 200
"""Items of a list that are looked at to see what the list is."""
_KEYS, _TURNS = WORDS["keys"], WORDS["turns"]
_ROLES, _TEXTS = frozenset(_TURNS["roles"]), frozenset(_TURNS["texts"])
_LABELS = {word: label for label in ("harmful", "harmless") for word in _KEYS[label]}
Path = tuple[str, ...]
"""The keys on the way to a row."""


def read_jsonl(file: DataFile) -> Iterator[Numbered]:
    """A row a line; a string is a request, and a list of turns a conversation."""
    with file.text() as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                fault = NOT_UTF_8 if is_damaged(line) else None
            except json.JSONDecodeError as error:
                value, fault = None, f"is not JSON ({error.msg})"
            except RecursionError:
                value, fault = None, "is nested too deeply"
            if fault is None and is_turns(value):
                yield number, {"messages": value}
            elif fault is None and isinstance(value, dict | str):
                yield number, value if isinstance(value, dict) else {"text": value}
            else:
                file.bad(number, fault or "is neither an object nor a text")


def read_json(file: DataFile) -> Iterator[Numbered]:
    """Rows of any nesting. Objects one after another, under the name .json, are read as well."""
    with file.text() as opened:
        head = opened.read(1 << 16)
        text = head + opened.read(WHOLE)
    start = head.lstrip()
    line, _, more = start.partition("\n")
    try:
        if more.strip() and _is_json(line):  # JSON lines
            yield from read_jsonl(file)
        elif len(text) > WHOLE:
            del text
            yield from ((0, row) for row in _stream(file, start[:1] == "["))
        elif start:
            yield from ((0, row) for row in _walk_whole(file.name, text))
    except json.JSONDecodeError as error:
        raise InputError(f"{file.name}, line {error.lineno}", f"is not JSON ({error.msg})", "Mend the line") from None
    except RecursionError:
        raise InputError(file.name, "is nested too deeply", "Write it as JSON lines") from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _walk_whole(name: str, text: str) -> Iterator[Row]:
    """Rows of a text: of one document, or of objects that each take several lines, with nothing but space between."""
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or text.lstrip()[:1] not in '{["':
            raise
        decoder, place = json.JSONDecoder(), 0
        while place < len(text):
            value, place = decoder.raw_decode(text, place)
            yield from _walk_list([value])
            while place < len(text) and text[place] in " \t\r\n,":
                place += 1
        return
    if is_damaged(text):
        raise InputError(name, "is UTF-8 at first and something else later", "Save it as UTF-8")
    yield from _walk(loaded)


class _Part(NamedTuple):
    """One list, or one object of rows, of a large document."""

    keys: Path
    """Where it stands."""
    path: Path
    """What that makes of its rows' category and label."""
    is_list: bool
    """False for an object of rows by id."""


class _Recoded:
    """A text file as UTF-8 bytes, whatever its encoding, that counts the lines given out."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.lines = 1

    def read(self, size: int = -1) -> bytes:
        """At most about `size` characters, as bytes."""
        text = self._file.read(size)
        self.lines += text.count("\n")
        return text.encode("utf-8", "surrogateescape")


@contextmanager
def _recoded(file: DataFile) -> Iterator[_Recoded]:
    """The file for ijson. What it can't read is an error that names the place."""
    with file.text() as opened:
        source = _Recoded(opened)
        try:
            yield source
        except ijson.JSONError:
            place = f"{file.name}, at or before line {source.lines}"
            fix = "Mend it (NaN is no JSON: write null), or write JSON lines"
            raise InputError(place, "is not JSON", fix) from None


def _stream(file: DataFile, is_list: bool) -> Iterator[Row]:
    """Rows of a large file: its lists one by one, or of the whole where no plan of lists fits it."""
    plan = [_Part((), (), True)] if is_list else _plan(_outline(file), (), ())
    if plan is None or len(plan) > _TABLES:
        with file.text() as opened:
            yield from _walk(json.load(opened))
        return
    for part in plan:
        with _recoded(file) as source:
            if part.is_list:
                items = ijson.items(source, ".".join((*part.keys, "item")), use_float=True)
                yield from _walk_list(items, part.path)
            else:
                for _, value in ijson.kvitems(source, ".".join(part.keys), use_float=True):
                    yield from _walk(value, part.path)


def _outline(file: DataFile) -> Any:
    """The document with the first items of its lists and objects alone: its shape, in little memory."""
    root: list[Any] = []
    stack: list[Any] = [root]
    keys: list[str] = [""]
    with _recoded(file) as source:
        for event, value in ijson.basic_parse(source, use_float=True):
            if event == "map_key":
                keys[-1] = value
            elif event in ("end_map", "end_array"):
                stack.pop()
                keys.pop()
            else:
                node: Any = {} if event == "start_map" else [] if event == "start_array" else value
                parent = stack[-1]
                kept = parent is not None and len(parent) < _FEW  # else it is left out, with all below it
                if kept and isinstance(parent, list):
                    parent.append(node)
                elif kept:
                    parent[keys[-1]] = node
                if event.startswith("start_"):
                    stack.append(node if kept else None)
                    keys.append("")
    return root[0]


def _plan(node: Any, keys: Path, path: Path) -> list[_Part] | None:
    """The lists, and the objects of rows, to stream one by one; None where the whole has to be seen at once."""
    below = _branches(node, path) if isinstance(node, dict) else None
    if below is None:
        return None
    children = [node[key] for key, _ in below]
    if all(isinstance(child, dict) and child and _branches(child, path) is None for child in children):
        return None if any(_is_table_object(child) for child in children) else [_Part(keys, path, False)]
    plan: list[_Part] = []
    for key, longer in below:
        child, place = node[key], (*keys, key)
        found = [_Part(place, longer, True)] if isinstance(child, list) else _plan(child, place, longer)
        if found is None:
            return None
        plan += found
    return plan


# Rows out of JSON of any nesting: what is a row, what is a branch, and which keys name a category.


def is_turns(value: object) -> bool:
    """True for the turns of a conversation: objects that each name a role and hold a text."""
    turns = value if isinstance(value, list) else []
    return bool(turns) and all(
        isinstance(turn, dict) and _ROLES & turn.keys() and _TEXTS & turn.keys() for turn in turns
    )


def _walk(node: object, path: Path = ()) -> Iterator[Row]:
    """Rows of any nesting; keys on the way that are no mere wrappers become the row's category."""
    if isinstance(node, str):
        yield _tagged({"text": node}, path)
    elif isinstance(node, list):
        yield from _walk_list(node, path)
    elif isinstance(node, dict):
        yield from _walk_object(node, path)


def _walk_list(items: Iterable[Any], path: Path = ()) -> Iterator[Row]:
    """Rows of a list, which may be a stream: its first items decide what it is."""
    stream = iter(items)
    head = list(itertools.islice(stream, _LOOK))
    if is_turns(head) and len({str(turn.get("role", turn.get("from"))) for turn in head}) > 1:
        yield _tagged({"messages": [*head, *stream]}, path)
    elif _is_grid(head):
        yield from _grid(itertools.chain(head, stream), path)
    else:
        for item in itertools.chain(head, stream):
            if is_turns(item):
                yield _tagged({"messages": item}, path)
            elif isinstance(item, dict) and not _is_branch(item):
                yield _tagged(item, path)
            else:
                yield from _walk(item, path)


def _branches(node: dict[str, Any], path: Path) -> list[tuple[str, Path]] | None:
    """Which keys of an object hold rows further down, with their paths; None where it is a row or a table itself."""
    if not node or _is_conversation(node) or _is_table_object(node):
        return None
    nested = [key for key, value in node.items() if isinstance(value, list | dict)]
    if len(nested) == len(node):
        content = [key for key in nested if key.lower() not in _KEYS["metadata"]]
        beside = [key for key in content if _is_table(node[key]) or _has_rows(node[key])]
        kept = beside if any(map(_is_wrapper, content)) and beside else nested
        return [(key, (*path, key)) for key in kept]
    if _kept(path):  # a row of a category
        return None
    tables = [key for key in nested if _is_table(node[key]) or (_is_wrapper(key) and _has_rows(node[key]))]
    tables = [key for key in tables if key.lower() not in _KEYS["metadata"]]
    chosen = list(filter(_is_wrapper, tables)) or tables
    # Rows beside a version, a licence or a count: with a single table its name tells nothing.
    lone = len(chosen) == 1 and not _label_of(chosen[0])
    return [(key, path if lone else (*path, key)) for key in chosen] or None


def _walk_object(node: dict[str, Any], path: Path) -> Iterator[Row]:
    below = _branches(node, path)
    if below is not None:
        for key, longer in below:
            value = node[key]
            is_row = isinstance(value, dict) and _branches(value, longer) is None and not _is_table_object(value)
            yield from _walk(value, path if is_row and not _label_of(key) else longer)
    elif _is_columns(node):
        for values in zip(*node.values(), strict=True):
            yield _tagged(dict(zip(node, values, strict=True)), path)
    elif _is_indexed(node):
        if "columns" in node:
            yield from _grid([node["columns"], *node["data"]], path, header=True)
        else:
            for index in next(iter(node.values())):
                yield _tagged({column: values.get(index) for column, values in node.items()}, path)
    elif _is_mapping(node):
        worded = all(words_in(key) >= 3 for key in node)
        for key, value in node.items():
            yield _tagged({"question": key, "response": value} if worded else {"text": value}, path)
    elif node:
        yield _tagged(node, path)


def _is_table_object(node: dict[str, Any]) -> bool:
    """True for an object that is itself a table of rows: columns, pandas' forms, texts by id."""
    return _is_columns(node) or _is_indexed(node) or _is_mapping(node)


def _tagged(row: Row, path: Path) -> Row:
    """The row with the category, and the label, that its path names."""
    kept = _kept(path)
    labels = [label for key in path if (label := _label_of(key))]
    tags: Row = {"category": list(kept)} if kept and "category" not in row else {}
    if labels and "label" not in row:
        tags["label"] = labels[-1]
    return row | tags if tags else row


def _kept(path: Path) -> Path:
    return tuple(key for key in path if not _is_wrapper(key))


def _key_words(key: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", key.lower())


def _is_wrapper(key: str) -> bool:
    """`data`, `train`, `all_questions`, `v2`, `17`, and `harmful_prompts`, which is a label and no category."""
    return all(word in _KEYS["wrappers"] or word in _LABELS for word in _key_words(re.sub(r"(?i)^v(?=\d)", "", key)))


def _label_of(key: str) -> str | None:
    """The label that a key such as `harmful` or `safe_prompts` gives to what stands under it."""
    found = {_LABELS[word] for word in _key_words(key) if word in _LABELS}
    return found.pop() if len(found) == 1 and _is_wrapper(key) else None


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _has_rows(value: object) -> bool:
    """Whether a list of texts, or objects all the way, stands under a wrapper's name."""
    if isinstance(value, dict):
        return bool(value) and all(isinstance(below, list | dict) for below in value.values())
    return isinstance(value, list) and any(isinstance(item, list) or words_in(str(item)) >= 2 for item in value)


def _is_conversation(node: dict[str, Any]) -> bool:
    """True for a row that holds the turns of a conversation: they are no branch of a tree."""
    if any(is_turns(value) for value in node.values()):
        return True
    key, value = next(iter(node.items()), ("", None))
    listed = isinstance(value, list) and len(value) > 1 and all(isinstance(turn, str) for turn in value)
    return listed and len(node) == 1 and key.lower() in _TURNS["columns"]


def _is_branch(item: dict[str, Any]) -> bool:
    """True for an item of a list that is a tree: lists at the end of every way, never a bare value."""
    return _ends_in_lists(item) and (_is_columns(item) or not _is_conversation(item))


def _ends_in_lists(node: dict[str, Any]) -> bool:
    return bool(node) and all(
        isinstance(value, list) or (isinstance(value, dict) and _ends_in_lists(value)) for value in node.values()
    )


def _is_columns(node: dict[str, Any]) -> bool:
    """True for a table written column by column: lists of one length, of which not all can be lists of requests."""
    lists = [value for value in node.values() if isinstance(value, list)]
    if len(lists) != len(node) or len(node) < 2 or len({len(value) for value in lists}) != 1 or not lists[0]:
        return False
    if any(key.lower() in _KEYS["text"] for key in node):
        return True
    flat = all(not isinstance(item, list | dict) for value in lists for item in value[:_LOOK])
    worded = [_is_worded(value) for value in lists]
    return flat and any(worded) and not all(worded)


def _is_worded(items: list[Any]) -> bool:
    """Whether most of a list's items are texts of several words."""
    head = items[:_LOOK]
    return sum(isinstance(item, str) and words_in(item) >= 3 for item in head) * 2 > len(head)


def _is_indexed(node: dict[str, Any]) -> bool:
    """True for what pandas writes: column to index to value, or column names beside rows of cells."""
    columns, data = node.get("columns"), node.get("data")
    if isinstance(columns, list) and isinstance(data, list) and data:
        return all(isinstance(cells, list) and len(cells) == len(columns) for cells in data[:_LOOK])
    values = list(node.values())
    return (
        bool(values)
        and all(isinstance(value, dict) and value for value in values)
        and all(key.isdigit() for value in values for key in itertools.islice(value, _LOOK))
        and all(not isinstance(cell, dict) for value in values for cell in itertools.islice(value.values(), _LOOK))
    )


def _is_mapping(node: dict[str, Any]) -> bool:
    """True for texts by id, and for answers by question: neither is one row of many columns."""
    if len(node) < 2 or not all(isinstance(value, str) for value in node.values()):
        return False
    if all(words_in(key) >= 3 for key in node):
        return True
    return all(re.search(r"\d", key) for key in node) and _is_worded(list(node.values()))


def _is_grid(head: list[Any]) -> bool:
    """True for rows written as lists of cells; lists of nothing but requests are groups of requests."""
    if not head or not all(isinstance(cells, list) and len(cells) > 1 for cells in head):
        return False
    if len({len(cells) for cells in head}) != 1 or any(isinstance(cell, list | dict) for row in head for cell in row):
        return False
    worded = [_is_worded(list(column)) for column in zip(*head[1:] or head, strict=True)]
    return any(worded) and not all(worded)


def _grid(rows: Iterable[Any], path: Path, header: bool = False) -> Iterator[Row]:
    stream = iter(rows)
    first = next(stream)
    header = header or is_header(first)
    names = [str(cell) for cell in first] if header else column_names(len(first))
    if not header:
        stream = itertools.chain([first], stream)
    for cells in stream:
        yield _tagged(dict(zip(names, cells, strict=False)), path)
