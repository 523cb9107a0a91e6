"""How far the loss curves of two processes, DDP and FSDP2, are from that of one: figures ddp_loss_diff, fsdp_loss_diff.

Trains on the first rows of built examples, with the shipped accelerate configs, on processors or GPUs:

    python benchmarks/distributed.py --examples runs/quickstart/2-build/examples.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from forethought.metrics import Figure

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {"ddp_loss_diff": "ddp.yaml", "fsdp_loss_diff": "fsdp2.yaml"}
STEPS = 12
BATCH = 8


class Written:
    """The paired objective; the first process appends each step's values, which are those of all processes."""

    def __init__(self, file: Path) -> None:
        from forethought.training.objective import PairedObjective

        self._paired, self._file = PairedObjective(), file

    def loss(self, model: Any, batch: Any, step: Any) -> Any:
        loss, values = self._paired.loss(model, batch, step)
        if int(os.environ.get("RANK", "0")) == 0:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        return loss, values

    def __repr__(self) -> str:
        return repr(self._paired)


def work(model: str, examples: Path, out: Path) -> None:
    """One process of a run: trains, and leaves the loss curve in `out`/losses.jsonl."""
    from forethought.models.weights import load_tokenizer
    from forethought.policy import default_policy
    from forethought.records import Example, read_jsonl
    from forethought.training.config import small_model
    from forethought.training.fit import train
    from forethought.training.rows import tokenize

    rows = list(read_jsonl(examples, Example))
    # Evenly spaced, so that both terms are there.
    chosen = rows[:: max(1, len(rows) // (STEPS * BATCH))][: STEPS * BATCH]
    tokenizer = load_tokenizer(model)
    tokens = [tokenize(row, tokenizer, default_policy(), "think", "short", 0) for row in chosen]
    config = small_model().model_copy(update={"batch_size": BATCH, "skip_layers": 0})
    train(model, tokens, config, out, objective=Written(out / "losses.jsonl"))


def curve(command: list[str], args: list[str], out: Path) -> list[dict[str, float]]:
    """The loss curve of one run of this file as a worker."""
    out.mkdir(parents=True)
    line = [*command, __file__, *args, "--worker", str(out)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return [json.loads(row) for row in (out / "losses.jsonl").read_text(encoding="utf-8").splitlines()]


def difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Largest difference of any term of the loss at any step."""
    if [set(step) for step in one] != [set(step) for step in other]:
        raise SystemExit("the runs differ in steps or terms")
    return max(abs(a[term] - b[term]) for a, b in zip(one, other, strict=True) for term in a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=Path, required=True, help="Built training rows (examples.jsonl).")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--worker", type=Path, help="For the processes that this starts.")
    args = parser.parse_args()
    if args.worker is not None:
        work(args.model, args.examples, args.worker)
        return
    passed = ["--examples", str(args.examples.resolve()), "--model", args.model]
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        one = curve([sys.executable], passed, Path(folder) / "one")
        for name, config in CONFIGS.items():
            launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
            launch += ["--config_file", str(ROOT / "recipes" / "accelerate" / config)]
            launch += ["--mixed_precision", "no", "--main_process_port", "0"]
            value = difference(one, curve(launch, passed, Path(folder) / name))
            figures[name] = Figure(value=value, n=len(one), unit="nats").model_dump(exclude={"name"})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
