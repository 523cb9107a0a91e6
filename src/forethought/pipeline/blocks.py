"""A file of rows in blocks, each of which one worker takes: what comes of a block is written once, whole."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from forethought.cluster import Workers
from forethought.manifest import replacing, write_json
from forethought.records import Record

_MANIFEST = "manifest.json"
Work = Callable[..., dict[str, Any]]
"""(block, an empty folder for its files, what all blocks share) to what was counted."""


class Block(Record):
    """Rows of a file that stand side by side."""

    file: Path
    start: int
    """Bytes before its first row."""
    stop: int
    key: str
    """Hash of its bytes: what comes of it is filed under this, whoever makes it and wherever it stands."""


def block_of(file: Path, start: int, stop: int) -> Block:
    """The rows between two places of a file, in bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        opened.seek(start)
        left = stop - start
        while left and (piece := opened.read(min(left, 1 << 20))):
            digest.update(piece)
            left -= len(piece)
    return Block(file=file, start=start, stop=stop, key=digest.hexdigest()[:16])


def cut(file: Path, rows: int | None) -> list[Block]:
    """A file in blocks of so many rows; None is one block, and so is an empty file."""
    ends = [0]
    if rows is not None:
        with file.open("rb") as lines:
            end = 0
            for number, line in enumerate(lines, start=1):
                end += len(line)
                if number % rows == 0:
                    ends.append(end)
    size = file.stat().st_size
    edges = [end for end in ends if end < size or end == 0] + [size]
    return [block_of(file, start, stop) for start, stop in itertools.pairwise(edges)]


def over_blocks(
    workers: Workers,
    work: Work,
    blocks: Sequence[Block],
    folder: Path,
    *shared: Any,
    on_done: Callable[[int, dict[str, Any]], None] | None = None,
) -> list[tuple[Path, dict[str, Any]]]:
    """(folder of its files, what was counted) of each block, in order; those that are there already are not done again.

    `folder` belongs to one stage of one configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    open_ones = [block for block in blocks if not (folder / block.key / _MANIFEST).is_file()]
    workers.map(_once, open_ones, work, folder, shared, on_result=on_done)
    found = ((folder / block.key, folder / block.key / _MANIFEST) for block in blocks)
    return [(there, json.loads(manifest.read_text(encoding="utf-8"))) for there, manifest in found]


def _once(block: Block, work: Work, folder: Path, shared: Sequence[Any]) -> dict[str, Any]:
    there = folder / block.key
    if not (there / _MANIFEST).is_file():
        # A folder of its own for each try: a worker that was taken for dead and lives on harms nothing.
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        try:
            write_json(part / _MANIFEST, work(block, part, *shared))
            os.rename(part, there)
        except OSError:
            if not (there / _MANIFEST).is_file():
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    counted: dict[str, Any] = json.loads((there / _MANIFEST).read_text(encoding="utf-8"))
    return counted


def join(out: Path, parts: Iterable[Path]) -> None:
    """Files one after the other as one, moved into place once it is whole."""
    with replacing(out) as part, part.open("wb") as whole:
        for one in parts:
            with one.open("rb") as opened:
                shutil.copyfileobj(opened, whole, 1 << 20)


def added_up(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by cause of all blocks, the most frequent first, then by name: the same however they were cut."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))
