"""Gathers what the defence zoo and the trainer show, and writes results/defences.json.

The zoo's figures are those of a finished sweep. Throughput and memory, the planner's check and the distributed runs
are measured by `throughput.py`, `planner.py` and `distributed.py` as processes of their own, or taken from what those
wrote.

    forethought sweep recipes/zoo.yaml
    python benchmarks/defences.py --sweep runs/zoo [--throughput FILE] [--planner FILE] [--distributed FILE]

The commit of each part stands among the inputs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from others import ROOT, given, printed

from forethought.metrics import Figure
from forethought.report.results import write_results

SHOWN = {
    "throughput": ("throughput_ratio", "memory_ratio"),
    "planner": ("plan_memory_ratio_lora", "plan_time_ratio_lora"),
    "distributed": ("ddp_loss_diff", "fsdp_loss_diff"),
}
"""The figures that each part is for."""


def held(file: Path) -> dict[str, Any]:
    """A results file."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def figures_of(found: dict[str, Any]) -> list[Figure]:
    """Its figures."""
    return [Figure.model_validate(row) for row in found["figures"]]


def measured(name: str, file: Path | None, examples: Path) -> dict[str, Any]:
    """What a benchmark with `--out` wrote: into `file` before, or now."""
    if file is not None:
        return held(file)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, str(ROOT / "benchmarks" / name), "--examples", str(examples), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        return held(out)


def stage_commits(folder: Path) -> str:
    """Commits at which the sweep's stages were run: those that are done stay done when the code moves on."""
    found = {str(held(file).get("commit", ""))[:12] for file in folder.glob("*/*/*/manifest.json")}
    return " ".join(sorted(one for one in found if one))


def distributed(file: Path | None, examples: Path) -> list[Figure]:
    """Largest differences of the loss between one process and two."""
    found = held(file) if file is not None else printed("distributed.py", "--examples", str(examples))
    return [Figure.model_validate({**row, "name": name}) for name, row in found.items()]


def main() -> None:
    """Gathers everything and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, required=True, help="Folder of a finished sweep.")
    parser.add_argument("--throughput", type=Path, help="What benchmarks/throughput.py wrote, instead of running it.")
    parser.add_argument("--planner", type=Path, help="What benchmarks/planner.py wrote, likewise.")
    parser.add_argument("--distributed", type=Path, help="What benchmarks/distributed.py printed, likewise.")
    parser.add_argument("--skip", nargs="*", default=[], choices=tuple(SHOWN), help="Parts that are not measured.")
    parser.add_argument("--out", type=Path, default=Path("results/defences.json"))
    options = parser.parse_args()
    sweep = held(options.sweep / "results.json")
    examples = next(iter(sorted(options.sweep.glob("*/data/4-build/examples.jsonl"))))
    asked = [name for name in ("throughput", "planner") if name not in options.skip]
    parts = {name: measured(f"{name}.py", getattr(options, name), examples) for name in asked}
    figures = figures_of(sweep) + [figure for part in parts.values() for figure in figures_of(part)]
    if "distributed" not in options.skip:
        figures += distributed(options.distributed, examples)
    missing = {**sweep.get("missing", {})} | {name: "not measured" for one in options.skip for name in SHOWN[one]}
    inputs = dict(sweep["inputs"]) | {"sweep: commits of its stages": stage_commits(options.sweep)}
    for name, part in {"sweep": sweep, **parts}.items():
        missing |= part.get("missing", {})
        inputs[f"{name}: commit"] = str(part["commit"])
    commands = [str(sweep["command"]), *(str(part["command"]) for part in parts.values())]
    command = "; ".join([*commands, given("defences.py", options)])
    write_results(options.out, sweep["seeds"], inputs, figures, missing, command)


if __name__ == "__main__":
    main()
