"""What a large training set costs before its first step: rows a second, peak memory, and the second start.

    python benchmarks/streaming.py --examples 1000000 [--seconds 3600] [--out results/streaming.json]

Writes innocuous synthetic examples of both terms, about a hundred tokens each, and makes SCoT's rows of them as
`forethought train` does: streamed, tokenised once, kept. Then the same again, which finds them kept; two thousand rows
are read at random after each. Each part runs in a process of its own, whose peak is the whole of it, Python and torch
included; `memory_growth_gib` is what it has more than the same process over a thousand examples. Nothing is trained.
Where `--seconds` are not enough for a start, the run ends with an error.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stream import rows as sentences

from forethought.manifest import key_of
from forethought.metrics import Figure
from forethought.report.results import write_results

ROOT = Path(__file__).resolve().parents[1]
FEW = 1000
"""Examples of the run that growth is counted from."""


def write(file: Path, count: int) -> None:
    """So many examples, every other one of the refusal term; no two requests alike."""
    from forethought.reasoning import Finding, SafetyReasoning
    from forethought.records import Example, user_request

    finding = Finding(rule="R4", violated=True, reason="it would help someone cheat others")
    refused = SafetyReasoning(intent="copy a paid film without paying", findings=(finding,), verdict="refuse")
    allowed = SafetyReasoning(intent="learn how to mend a thing at home", verdict="comply")
    with file.open("w", encoding="utf-8") as out:
        for row in sentences(count, with_category=False):
            bad = row["is_harmful"] == 1
            request = user_request(str(row["prompt"]), harmful=bad, rules=("R4",) if bad else ())
            one = Example(request=request, reasoning=refused if bad else allowed, answer=str(row["response"]))
            out.write(one.model_dump_json(exclude_defaults=True) + "\n")


def work(file: Path, model: str) -> None:
    """One process: makes the rows or finds them, reads some of them at random, and prints what it took."""
    from forethought.models.machine import peak_gib
    from forethought.models.weights import load_tokenizer
    from forethought.policy import default_policy
    from forethought.training.methods.base import Material
    from forethought.training.methods.catalogue import all_methods
    from forethought.training.run import training_rows
    from forethought.training.streamed import ExampleFile

    tokenizer = load_tokenizer(model)
    began = time.perf_counter()
    material = Material(ExampleFile(file), tokenizer, default_policy())
    rows, _ = training_rows(all_methods()["scot"], material, None, file.parent / f"kept-{file.stem}")
    seconds = time.perf_counter() - began
    draws = random.Random(0).choices(range(len(rows)), k=2000)
    began = time.perf_counter()
    for place in draws:
        rows[place]
    reads = len(draws) / (time.perf_counter() - began)
    print(json.dumps({"rows": len(rows), "seconds": seconds, "reads": reads, "peak_gib": peak_gib()}))


def start(file: Path, model: str, seconds: float) -> dict[str, float]:
    """One start in a process of its own."""
    words = [sys.executable, str(Path(__file__).resolve()), "--worker", str(file), "--model", model]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"a start took longer than {seconds:.0f} s; give fewer --examples or more --seconds") from None
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def figures(few: dict[str, float], first: dict[str, float], second: dict[str, float]) -> list[Figure]:
    """What the starts come to."""

    def one(name: str, value: float, unit: str) -> Figure:
        return Figure(name=name, value=value, n=int(first["rows"]), unit=unit)

    return [
        one("streamed_rows", first["rows"], "rows"),
        one("tokenising_rate", first["rows"] / first["seconds"], "rows/s"),
        one("first_start", first["seconds"], "s"),
        one("second_start", second["seconds"], "s"),
        one("random_reads", second["reads"], "rows/s"),
        one("memory_streaming_gib", first["peak_gib"], "GiB"),
        one("memory_growth_gib", first["peak_gib"] - few["peak_gib"], "GiB"),
    ]


def main() -> None:
    """Writes the examples in a temporary folder, measures, prints the figures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000, help="Synthetic examples.")
    parser.add_argument("--model", default="embedded", help="Whose tokenizer.")
    parser.add_argument("--seconds", type=float, default=3600, help="Longest time of one start.")
    parser.add_argument("--out", type=Path, help="Results file; only printed without it.")
    parser.add_argument("--worker", type=Path, help="For the processes that this starts.")
    options = parser.parse_args()
    if options.worker is not None:
        work(options.worker, options.model)
        return
    with tempfile.TemporaryDirectory() as name:
        files: dict[str, Any] = {"few": Path(name) / "few.jsonl", "all": Path(name) / "all.jsonl"}
        write(files["few"], FEW)
        write(files["all"], options.examples)
        few = start(files["few"], options.model, options.seconds)
        first, second = (start(files["all"], options.model, options.seconds) for _ in range(2))
    found = figures(few, first, second)
    print(json.dumps([figure.model_dump() for figure in found], indent=2))
    if options.out is not None:
        made = key_of([options.examples, options.model])
        write_results(options.out, [0], {"synthetic examples": made}, found)


if __name__ == "__main__":
    main()
