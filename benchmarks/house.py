"""How large the house is, and how long one waits in it: lines, files, circles, tests, quickstart, kept figures.

Usage: python benchmarks/house.py [--skip PART]... [--out results/house.json]

Takes half an hour on two cores. `make test`, `make check` and `make quickstart` are run as a person would, in this
checkout, whose environment is there already. The study's and the ladder's committed logs are made into figures anew and
compared with the committed figures, name by name; what a run itself took (`minutes`, `peak_gib`) is not compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from forethought.manifest import file_hash
from forethought.metrics import Figure
from forethought.report.results import write_results

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "forethought"
LOGS = {
    "study": ["study", "recipes/study.yaml", "--kept", "results/study"],
    "study_parts": ["study", "recipes/study_parts.yaml", "--kept", "results/study_parts"],
    "study_1_5b": ["study", "recipes/study_1_5b.yaml", "--kept", "results/study_1_5b"],
    "ladder": ["ladder", "recipes/ladder", "--kept", "results/ladder"],
}
COSTS = ("minutes", "peak_gib")
PARTS = ("test", "check", "quickstart", *LOGS)


def sizes() -> list[Figure]:
    """Lines and files of the source; research apart."""
    files = sorted(SOURCE.rglob("*.py"))
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    product = [file for file in files if file.relative_to(SOURCE).parts[0] != "research"]
    return [
        Figure(name="source_lines", value=sum(lines.values()), unit="lines"),
        Figure(name="product_lines", value=sum(lines[file] for file in product), unit="lines"),
        Figure(name="source_files", value=sum(count > 0 for count in lines.values()), unit="files"),
        Figure(name="import_circles", value=circles(), unit="circles"),
    ]


def circles() -> int:
    """Groups of modules that import each other, also inside functions or for types alone."""
    sys.path.insert(0, str(ROOT))  # tests stand beside this folder
    from tests.test_imports import import_graph

    graph = import_graph()
    names = sorted(graph)
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[name], place[other]) for name in names for other in graph[name]]
    matrix = csr_array(([1] * len(pairs), tuple(zip(*pairs, strict=True))), shape=(len(names), len(names)))
    _, group = connected_components(matrix, directed=True, connection="strong")
    return sum(count > 1 for count in Counter(group.tolist()).values())


def minutes(command: list[str]) -> float | None:
    """Minutes that a command takes; None where it fails."""
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, check=False)
    return (time.monotonic() - start) / 60 if done.returncode == 0 else None


def quickstart() -> float | None:
    """Minutes of the quickstart, from nothing; what stood in its folder is gone."""
    shutil.rmtree(ROOT / "runs" / "quickstart", ignore_errors=True)
    return minutes(["make", "quickstart"])


def figures_again(name: str, folder: Path) -> tuple[int, int]:
    """(figures of a committed results file, those that its committed log gives again)."""
    made = folder / f"{name}.json"
    command = [sys.executable, "-m", "forethought", *LOGS[name], "--so-far"]
    subprocess.run([*command, "--out", str(folder / name), "--results", str(made)], cwd=ROOT, check=False)
    before, after = ({row["name"]: row for row in read(file)} for file in (ROOT / "results" / made.name, made))
    before = {row: held for row, held in before.items() if row not in COSTS}
    return len(before), sum(after.get(row) == held for row, held in before.items())


def read(file: Path) -> list[dict[str, object]]:
    """The figures of a results file."""
    rows: list[dict[str, object]] = json.loads(file.read_text(encoding="utf-8"))["figures"]
    return rows


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--skip", action="append", choices=PARTS, default=[], help="leave a part out: its figure of before stays"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "house.json")
    options = parser.parse_args()
    figures, missing = sizes(), {}
    with tempfile.TemporaryDirectory() as scratch:
        timed: dict[str, Callable[[], float | None]] = {
            "test": lambda: minutes(["make", "test"]),
            "check": lambda: minutes(["make", "check"]),
            "quickstart": quickstart,
        }
        for part, measure in timed.items():
            if part in options.skip:
                continue
            taken = measure()
            if taken is None:
                missing[f"{part}_minutes"] = "it failed"
            else:
                figures.append(Figure(name=f"{part}_minutes", value=taken, unit="minutes"))
        found = [figures_again(name, Path(scratch)) for name in LOGS if name not in options.skip]
    if found:
        figures.append(Figure(name="figures_compared", value=sum(n for n, _ in found), unit="figures"))
        figures.append(Figure(name="figures_equal", value=sum(n for _, n in found), unit="figures"))
    inputs = {f"{name}.json": file_hash(ROOT / "results" / f"{name}.json") for name in LOGS}
    write_results(options.out, [0], inputs, figures, missing, keep=True)
    print(json.dumps({figure.name: round(figure.value, 2) for figure in figures}, indent=2))


if __name__ == "__main__":
    main()
