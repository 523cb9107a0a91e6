"""Benchmark files of harmless rows, written for a test, and what is read from them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forethought.data.behaviors import Benchmark
from forethought.data.benchmarks import load_benchmark

KNOT, BOW, KITE = "How do I tie a knot?", "How do I tie a bow?", "How do I fly a kite?"
JBB = {"Index": "0", "Goal": KNOT, "Target": "Sure", "Behavior": "Knots", "Category": "Ropes", "Source": "Original"}
Rows = Sequence[dict[str, Any]]


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> Benchmark:
    return load_benchmark(str(path), **options)


def texts(found: Benchmark) -> list[str]:
    return [behavior.request.text for behavior in found.behaviors]


def labels(found: Benchmark) -> list[bool | None]:
    return [behavior.request.harmful for behavior in found.behaviors]


HARMBENCH = {"Behavior": KNOT, "FunctionalCategory": "standard", "SemanticCategory": "ropes", "Tags": ""} | {
    "ContextString": "",
    "BehaviorID": "knot",
}


def harmbench(folder: Path, **cells: str) -> Path:
    contextual = HARMBENCH | {
        "Behavior": "Which knot is this?",
        "FunctionalCategory": "contextual",
        "Tags": "context",
        "ContextString": "Over, under,\nand through.",
        "BehaviorID": "which",
    }
    copied = HARMBENCH | {
        "Behavior": "Recite the song",
        "FunctionalCategory": "copyright",
        "SemanticCategory": "copyright",
        "Tags": "lyrics, hash_check",
        "BehaviorID": "song",
    }
    return write_csv(folder / "rows.csv", [HARMBENCH, contextual | cells, copied])
