"""Which line of a file a row stands on: the readers give rows without one."""

from __future__ import annotations

import contextlib
import csv
import json
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import TextIO

from forethought.data.readers import Row
from forethought.data.readers.base import open_text
from forethought.data.readers.rows import data_suffix, open_all

_TABLES = frozenset({".csv", ".tsv"})
_LINES = frozenset({".jsonl", ".ndjson"})


def lines_of(spec: str, name: str, rows: Sequence[Row]) -> list[int | None]:
    """The first line of each row of a file, in the order of the file; None for a format without lines.

    Rows are found by what they hold, in one pass over the file.
    """
    found: list[int | None] = [None] * len(rows)
    suffix = data_suffix(name)
    if not rows or suffix not in _TABLES | _LINES or spec.startswith(("hub:", "disk:")):
        return found
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for number, row in enumerate(rows):
        waiting[_key(list(row.values()) if suffix in _TABLES else row)].append(number)
    opener = next((opener for other, opener in open_all(spec, _TABLES | _LINES) if other == name), None)
    if opener is None:
        return found
    with open_text(name, opener) as file:
        records = _json_lines(file) if suffix in _LINES else _table(file, list(rows[0]))
        for line, key in records:
            if waiting.get(key):
                found[waiting[key].popleft()] = line
    return found


def _json_lines(file: TextIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):
            yield number, _key(json.loads(line))


def _table(file: TextIO, header: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Rows of a table with the line on which each begins, after the line that is its header."""
    delimiter = _delimiter(file, header)
    if delimiter is None:
        return
    reader = csv.reader(file, delimiter=delimiter)
    start, below = 1, False
    with contextlib.suppress(csv.Error):
        for cells in reader:
            if below:
                yield start, _key([*cells[: len(header)], *[None] * (len(header) - len(cells))])
            below = below or [cell.strip() for cell in cells] == header
            start = reader.line_num + 1


def _delimiter(file: TextIO, header: Sequence[str]) -> str | None:
    """The delimiter that makes the header of one of the file's first lines."""
    head = [line.removeprefix("\ufeff") for _, line in zip(range(20), file, strict=False)]
    file.seek(0)
    for delimiter in ",;\t|":
        if any([cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])] == header for line in head):
            return delimiter
    return None


def _key(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
