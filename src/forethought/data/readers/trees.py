"""Rows out of JSON of any nesting: what is a row, what is a branch, and which keys name a category."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from forethought.data.readers.base import CONVERSATION_COLUMNS, Row, column_names, is_header, is_turns, words_in

_WRAPPERS = {
    "data", "dataset", "datasets", "set", "sets", "row", "rows", "train", "training", "test", "testing", "dev",
    "valid", "validation", "val", "eval", "evaluation", "split", "splits", "default", "example", "examples", "item",
    "items", "question", "questions", "prompt", "prompts", "request", "requests", "record", "records", "entry",
    "entries", "instance", "instances", "sample", "samples", "list", "results", "content", "contents", "value",
    "values", "all", "version", "versions", "queries", "query", "instructions", "goals", "behaviors", "behaviours",
    "text", "texts", "json", "jsonl", "root", "payload", "body", "documents", "docs", "conversation", "conversations",
    "messages", "the", "of", "and", "my",
}  # fmt: skip
_METADATA = {
    "schema", "meta", "metadata", "info", "features", "config", "license", "licence", "citation", "about", "fields",
    "columns", "dataset_info", "readme", "authors", "taxonomy", "rubric",
}  # fmt: skip
_LABELS = {
    "harmful": "harmful", "unsafe": "harmful", "malicious": "harmful", "toxic": "harmful",
    "harmless": "harmless", "safe": "harmless", "benign": "harmless", "unharmful": "harmless",
}  # fmt: skip
_TEXT_COLUMNS = {"prompt", "question", "instruction", "text", "goal", "behavior"}
_LOOK = 200
"""Items of a list that are looked at to see what the list is."""
Path = tuple[str, ...]


def walk(node: object, path: Path = ()) -> Iterator[Row]:
    """Rows of any nesting; keys on the way that are no mere wrappers become the row's category."""
    if isinstance(node, str):
        yield _tagged({"text": node}, path)
    elif isinstance(node, list):
        yield from walk_list(node, path)
    elif isinstance(node, dict):
        yield from _walk_object(node, path)


def walk_list(items: Iterable[Any], path: Path = ()) -> Iterator[Row]:
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
                yield from walk(item, path)


def branches(node: dict[str, Any], path: Path) -> list[tuple[str, Path]] | None:
    """Which keys of an object hold rows further down, with their paths; None where it is a row or a table itself."""
    if not node or is_conversation(node) or is_columns(node) or _is_indexed(node) or _is_mapping(node):
        return None
    nested = [key for key, value in node.items() if isinstance(value, list | dict)]
    if len(nested) == len(node):
        wrapped = [key for key in nested if _is_wrapper(key) and key.lower() not in _METADATA]
        beside = [
            key for key in nested if key.lower() not in _METADATA and (_is_table(node[key]) or _has_rows(node[key]))
        ]
        kept = beside if wrapped and beside else nested
        return [(key, (*path, key)) for key in kept]
    if _kept(path):  # a row of a category
        return None
    tables = [key for key in nested if _is_table(node[key]) or (_is_wrapper(key) and _has_rows(node[key]))]
    named = [key for key in tables if _is_wrapper(key) and key.lower() not in _METADATA]
    chosen = named or [key for key in tables if key.lower() not in _METADATA]
    # Rows beside a version, a licence or a count: with a single table its name tells nothing.
    lone = len(chosen) == 1 and not _label_of(chosen[0])
    return [(key, path if lone else (*path, key)) for key in chosen] or None


def _walk_object(node: dict[str, Any], path: Path) -> Iterator[Row]:
    below = branches(node, path)
    if below is not None:
        for key, longer in below:
            value = node[key]
            is_row = isinstance(value, dict) and branches(value, longer) is None and not is_table_object(value)
            yield from walk(value, path if is_row and not _label_of(key) else longer)
    elif is_columns(node):
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


def is_table_object(node: dict[str, Any]) -> bool:
    """True for an object that is itself a table of rows: columns, pandas' forms, texts by id."""
    return is_columns(node) or _is_indexed(node) or _is_mapping(node)


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
    return all(word in _WRAPPERS or word in _LABELS for word in _key_words(re.sub(r"(?i)^v(?=\d)", "", key)))


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


def is_conversation(node: dict[str, Any]) -> bool:
    """True for a row that holds the turns of a conversation: they are no branch of a tree."""
    return any(is_turns(value) for value in node.values()) or any(
        key.lower() in CONVERSATION_COLUMNS
        and isinstance(value, list)
        and len(value) > 1
        and all(isinstance(turn, str) for turn in value)
        for key, value in node.items()
        if len(node) == 1
    )


def _is_branch(item: dict[str, Any]) -> bool:
    """True for an item of a list that is a tree: lists at the end of every way, never a bare value."""
    nested = bool(item) and all(isinstance(value, list | dict) for value in item.values())
    return nested and _ends_in_lists(item) and (is_columns(item) or not is_conversation(item))


def _ends_in_lists(node: dict[str, Any]) -> bool:
    return bool(node) and all(
        isinstance(value, list) or (isinstance(value, dict) and _ends_in_lists(value)) for value in node.values()
    )


def is_columns(node: dict[str, Any]) -> bool:
    """True for a table written column by column: lists of one length, of which not all can be lists of requests."""
    lists = [value for value in node.values() if isinstance(value, list)]
    if len(lists) != len(node) or len(node) < 2 or len({len(value) for value in lists}) != 1 or not lists[0]:
        return False
    if any(key.lower() in _TEXT_COLUMNS for key in node):
        return True
    flat = all(not isinstance(item, list | dict) for value in lists for item in value[:_LOOK])
    return flat and any(not _is_worded(value) for value in lists) and any(_is_worded(value) for value in lists)


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
    columns = list(zip(*head[1:] or head, strict=True))
    return any(_is_worded(list(column)) for column in columns) and not all(
        _is_worded(list(column)) for column in columns
    )


def _grid(rows: Iterable[Any], path: Path, header: bool = False) -> Iterator[Row]:
    stream = iter(rows)
    first = next(stream)
    names = [str(cell) for cell in first] if header or is_header(first) else column_names(len(first))
    if not (header or is_header(first)):
        stream = itertools.chain([first], stream)
    for cells in stream:
        yield _tagged(dict(zip(names, cells, strict=False)), path)
