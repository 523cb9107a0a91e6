"""Measures the build and writes results/build.json.

The rule teacher over four public sets (one variant a request), the LLM teacher against a mock server
that answers in one second, rule accuracy on held-out requests, and a million rows streamed. Needs a
folder with the public sets (star1, harmfulqa, do_not_answer, alpaca; see docs/research/results.md), which
are not part of the project.

    python benchmarks/build.py FOLDER [--out results/build.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from others import printed

from forethought.manifest import file_hash
from forethought.metrics import Figure
from forethought.report.results import write_results

HARMFUL = ("harmful/star1.json", "harmful/harmfulqa.json", "harmful/do_not_answer")
HARMLESS = "benign/alpaca_999.json"


def build_figures(data: Path) -> list[Figure]:
    """The rule teacher as a whole process, twice: the second must give the same bytes."""
    hashes = []
    figures: list[Figure] = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "forethought", "build", *(str(data / path) for path in HARMFUL)]
            began = time.monotonic()
            subprocess.run([*command, "--harmless", str(data / HARMLESS), "--out", folder], check=True)
            minutes = (time.monotonic() - began) / 60
            manifest: dict[str, Any] = json.loads((Path(folder) / "dataset/manifest.json").read_text(encoding="utf-8"))
            hashes.append(manifest["files"])
            facts = manifest["facts"]
            figures = [
                Figure(name="rows", value=facts["rows"], unit="rows"),
                Figure(name="minutes", value=minutes, unit="minutes"),
                Figure(name="peak_gib", value=_peak_of_children_gib(), unit="GiB"),
                Figure(name="verified_share", value=facts["verified"] / facts["taught"], n=facts["taught"]),
                Figure(name="intent_kept_share", value=facts["intent_kept"], n=facts["intent_checked"]),
            ]
    if hashes[0] != hashes[1]:
        raise SystemExit("two builds of the same seed differ")
    return figures


def _peak_of_children_gib() -> float:
    """Largest resident memory of any finished child, GiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2


def main() -> None:
    """Runs everything and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Folder with harmful/ and benign/.")
    parser.add_argument("--out", type=Path, default=Path("results/build.json"))
    options = parser.parse_args()
    figures = build_figures(options.folder)
    teacher = printed("teacher.py")
    figures += [Figure(name=name, value=teacher[name], unit="ratio") for name in ("concurrency_ratio", "calls_ratio")]
    more = printed("teacher.py", "--concurrency", "100")
    figures.append(Figure(name="concurrency_ratio_100", value=more["concurrency_ratio"], unit="ratio"))
    stream = printed("stream.py")
    figures += [
        Figure(name="stream_rows", value=stream["stream_rows"], unit="rows"),
        Figure(name="stream_peak_gib", value=stream["stream_peak_gib"], unit="GiB"),
    ]
    rules = printed("rules.py", "--kind", "embedded", "--star1", str(options.folder / HARMFUL[0]))
    figures += [Figure.model_validate(row) for row in rules["figures"]]
    text = printed("rules.py", "--star1", str(options.folder / HARMFUL[0]))
    figures += [Figure.model_validate(row).named(f"{row['name']}_text") for row in text["figures"]]
    files = [path for path in (options.folder / one for one in (*HARMFUL, HARMLESS)) if path.is_file()]
    # The folder is the reader's own: no path of a machine stands in a results file.
    write_results(
        options.out,
        [0],
        {path.name: file_hash(path) for path in files},
        figures,
        command="python benchmarks/build.py FOLDER",
    )


if __name__ == "__main__":
    main()
