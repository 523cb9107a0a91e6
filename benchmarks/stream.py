"""How much memory and time a large set takes: `python benchmarks/stream.py --format json --rows 1000000`.

Makes a synthetic set of innocuous sentences (half of them labelled harmful, with
categories) in a temporary folder, imports it by `forethought data read` in a process of
its own, and prints its peak memory and seconds as JSON.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_VERBS = ("mend", "paint", "fold", "carry", "weigh", "label", "stack", "polish", "measure", "wrap", "dry")
_THINGS = (
    "rope",
    "sail",
    "mast",
    "oar",
    "keel",
    "hull",
    "deck",
    "anchor",
    "lantern",
    "chart",
    "compass",
    "bell",
    "net",
)
_PLACES = ("harbour", "garden", "kitchen", "workshop", "attic", "library", "orchard")
_CATEGORIES = ("Fraud", "Privacy", "Violence", "Hate speech", "Misinformation")


def rows(count: int, with_category: bool) -> Iterator[dict[str, object]]:
    """Rows of several columns, about 400 bytes each, no two alike."""
    parts = itertools.cycle(itertools.product(_VERBS, _THINGS, _PLACES))
    for number, (verb, thing, place) in zip(range(count), parts, strict=False):
        harmful = number % 2
        row: dict[str, object] = {
            "row_id": f"row-{number:09d}",
            "prompt": f"How do I {verb} the {thing} number {number} in the {place} before the guests arrive?",
            "response": f"First put the {thing} on a table in the {place}; then {verb} it slowly. " * 3,
            "is_harmful": harmful,
            "origin": "synthetic",
        }
        if with_category:
            row["category"] = _CATEGORIES[number % len(_CATEGORIES)] if harmful else ""
        yield row


def write(file: Path, count: int, with_category: bool) -> None:
    """Writes the rows in the format that the file's name asks for: .json, .jsonl or .csv."""
    with file.open("w", encoding="utf-8", newline="") as out:
        if file.suffix == ".csv":
            first = next(rows(1, with_category))
            table = csv.DictWriter(out, list(first))
            table.writeheader()
            table.writerows(rows(count, with_category))
            return
        array = file.suffix == ".json"
        between = ",\n" if array else "\n"
        out.write("[" if array else "")
        for number, row in enumerate(rows(count, with_category)):
            out.write((between if number else "") + json.dumps(row))
        out.write("]" if array else "\n")


def measure(count: int, kind: str, with_category: bool) -> dict[str, object]:
    """Writes a set, imports it in a child process, and measures that child."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / f"set.{kind}", Path(folder) / "requests.jsonl"
        write(file, count, with_category)
        command = [sys.executable, "-m", "forethought", "data", "read", str(file), "--out", str(out)]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(done.stderr)
        with out.open("rb") as written:
            kept = sum(1 for _ in written)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "format": kind,
        "categories": with_category,
        "stream_rows": kept,
        "stream_peak_gib": round(peak_kib / 1024**2, 3),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Parses the options and prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["json", "jsonl", "csv"], default="json")
    parser.add_argument(
        "--without-categories", action="store_true", help="Leave the rules of harmful rows to the classifier."
    )
    options = parser.parse_args()
    print(json.dumps(measure(options.rows, options.format, not options.without_categories)))


if __name__ == "__main__":
    main()
