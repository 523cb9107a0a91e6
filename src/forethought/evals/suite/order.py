"""Rows of a plan in the order in which a prefix cache gets most out of them, sorted on disk."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from forethought.evals.suite.records import PlannedAttempt

_LEAD = 600
"""Characters by which rows are compared; those that share so many stand together, shorter ones first."""
_ROWS = 20_000
"""Most rows held at once."""
_BYTES = 64 << 20
"""Most characters held at once: rows of many-shot attacks are long."""
_NOT_RUN = "~"


def sorted_rows(rows: Iterable[PlannedAttempt], scratch: Path) -> Iterator[PlannedAttempt]:
    """The rows by their leading text, then length, then id; those that are not run come last, by attack.

    Rows that begin alike, a template's text or a system prompt, follow each other, and so do rows that are alike
    throughout. Memory is that of one run of the merge sort; `scratch` is a folder with room for all rows.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder, ExitStack() as stack:
        runs = [_write(lines, Path(folder) / str(number)) for number, lines in enumerate(_chunks(rows))]
        files = [stack.enter_context(run.open(encoding="utf-8")) for run in runs]
        for line in heapq.merge(*files):
            yield PlannedAttempt.model_validate_json(line.rpartition("\t")[2])


def _chunks(rows: Iterable[PlannedAttempt]) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for row in rows:
        held.append(f"{_key(row)}\t{row.model_dump_json(exclude_defaults=True)}\n")
        size += len(held[-1])
        if len(held) >= _ROWS or size >= _BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _write(lines: list[str], path: Path) -> Path:
    lines.sort()
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def _key(row: PlannedAttempt) -> str:
    """JSON text in ASCII, without a tab: keys are compared as lines of a file are."""
    if row.cause:
        return json.dumps([_NOT_RUN, row.attack, row.id])
    said = [f"{message.role} {message.content}" for message in row.request.messages]
    lead, length = "", sum(len(one) for one in said) + len(row.prefill)
    for one in said:
        lead += one[: _LEAD - len(lead)] + "\n"
        if len(lead) >= _LEAD:
            break
    return json.dumps([" ", lead[:_LEAD], f"{length:09}", row.id])
