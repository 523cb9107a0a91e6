"""JSON and JSON lines. Small files are judged whole; large ones are streamed (ijson)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TextIO

import ijson

from forethought.data.readers.base import OnBad, Opener, Row, is_damaged, is_turns, open_text
from forethought.data.readers.trees import Path, branches, is_table_object, walk, walk_list
from forethought.errors import InputError

WHOLE = 32 << 20
"""Largest file, in characters, that is read at once."""
_FEW = 50
"""Items of each list and object that stand for the rest when a large file's shape is judged."""
_TABLES = 16
"""Most lists that are streamed one after another; each takes a pass over the file."""


def read_jsonl(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Row]:
    """A row a line; a string is a request, and a list of turns a conversation."""
    with open_text(name, opener) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                fault = "is not UTF-8, unlike the rest of the file" if is_damaged(line) else None
            except json.JSONDecodeError as error:
                value, fault = None, f"is not JSON ({error.msg})"
            except RecursionError:
                value, fault = None, "is nested too deeply"
            if fault is None and is_turns(value):
                yield {"messages": value}
            elif fault is None and isinstance(value, dict | str):
                yield value if isinstance(value, dict) else {"text": value}
            else:
                rule = fault or "is neither an object nor a text"
                on_bad(InputError(f"{name}, line {number}", rule, "Mend the line, or skip such rows with --skip-bad"))


def read_json(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Row]:
    """Rows of any nesting. Objects one after another, under the name .json, are read as well."""
    with open_text(name, opener) as file:
        text = file.read(WHOLE + 1)
    if len(text) > WHOLE:
        del text
        yield from _read_large(name, opener, on_bad)
        return
    if not text.strip():
        return
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or text.lstrip()[:1] not in '{["':
            raise _not_json(name, error) from None
        if _is_json(text.lstrip().partition("\n")[0]):  # JSON lines
            yield from read_jsonl(name, opener, on_bad)
        else:
            yield from _one_after_another(name, text)
        return
    except RecursionError:
        raise InputError(name, "is nested too deeply", "Write it as JSON lines") from None
    if is_damaged(text):
        raise InputError(name, "is UTF-8 at first and something else later", "Save it as UTF-8")
    yield from walk(loaded)


def _not_json(name: str, error: json.JSONDecodeError) -> InputError:
    return InputError(f"{name}, line {error.lineno}", f"is not JSON ({error.msg})", "Mend the line")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _one_after_another(name: str, text: str) -> Iterator[Row]:
    """Objects that each take several lines, with nothing but space between them."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise _not_json(name, error) from None
        yield from walk_list([value])
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1


class _Part(NamedTuple):
    """One list, or one object of rows, of a large document."""

    keys: Path
    """Where it stands."""
    path: Path
    """What that makes of its rows' category and label."""
    kind: Literal["list", "rows"]


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


def _read_large(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Row]:
    with open_text(name, opener) as file:
        start = file.read(1 << 16).lstrip()
    line, _, more = start.partition("\n")
    if start[:1] != "[" and more.strip() and _is_json(line):  # JSON lines
        yield from read_jsonl(name, opener, on_bad)
        return
    try:
        plan = [_Part((), (), "list")] if start[:1] == "[" else _plan(_outline(name, opener), (), ())
        if plan is None or len(plan) > _TABLES:
            with open_text(name, opener) as file:
                yield from walk(json.load(file))
            return
        for part in plan:
            yield from _stream(name, opener, part)
    except json.JSONDecodeError as error:
        raise _not_json(name, error) from None


def _stream(name: str, opener: Opener, part: _Part) -> Iterator[Row]:
    with open_text(name, opener) as file:
        source = _Recoded(file)
        try:
            if part.kind == "list":
                items = ijson.items(source, ".".join((*part.keys, "item")), use_float=True)
                yield from walk_list(items, part.path)
            else:
                for _, value in ijson.kvitems(source, ".".join(part.keys), use_float=True):
                    yield from walk(value, part.path)
        except ijson.JSONError:
            raise _broken(name, source) from None


def _broken(name: str, source: _Recoded) -> InputError:
    return InputError(
        f"{name}, at or before line {source.lines}",
        "is not JSON",
        "Mend it (NaN is no JSON: write null), or write JSON lines",
    )


def _outline(name: str, opener: Opener) -> Any:
    """The document with the first items of its lists and objects alone: its shape, in little memory."""
    root: list[Any] = []
    stack: list[Any] = [root]
    keys: list[str] = [""]
    with open_text(name, opener) as file:
        source = _Recoded(file)
        try:
            for event, value in ijson.basic_parse(source, use_float=True):
                if event in ("end_map", "end_array"):
                    stack.pop()
                    keys.pop()
                    continue
                if event == "map_key":
                    keys[-1] = value
                    continue
                node: Any = {} if event == "start_map" else [] if event == "start_array" else value
                kept = _keep(stack[-1], keys[-1], node)
                if event.startswith("start_"):
                    stack.append(node if kept else None)
                    keys.append("")
        except ijson.JSONError:
            raise _broken(name, source) from None
    return root[0]


def _keep(parent: Any, key: str, node: Any) -> bool:
    """Adds a node to its parent while that has few; False for one that is left out, with all below it."""
    if parent is None or len(parent) >= _FEW:
        return False
    if isinstance(parent, list):
        parent.append(node)
    else:
        parent[key] = node
    return True


def _plan(node: Any, keys: Path, path: Path) -> list[_Part] | None:
    """The lists, and the objects of rows, to stream one by one; None where the whole has to be seen at once."""
    below = branches(node, path) if isinstance(node, dict) else None
    if below is None:
        return None
    children = [node[key] for key, _ in below]
    if all(isinstance(child, dict) and child and branches(child, path) is None for child in children):
        return None if any(is_table_object(child) for child in children) else [_Part(keys, path, "rows")]
    plan: list[_Part] = []
    for key, longer in below:
        child, place = node[key], (*keys, key)
        found = [_Part(place, longer, "list")] if isinstance(child, list) else _plan(child, place, longer)
        if found is None:
            return None
        plan += found
    return plan
