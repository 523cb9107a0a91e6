"""Our trainer against TRL's `SFTTrainer` with its defaults: figures throughput_ratio, memory_ratio.

Both train the same LoRA adapter on the same rows with the same batch size, so the same tokens a step on average, in the
same number type, each in a process of its own, in turns. TRL is left with its own loss, collator, order of rows,
gradient checkpointing and fused head, which are its defaults; so that it can take our tokens, rows are given to it as
`input_ids` and `labels`, the form that its own tokenisation makes.

    python benchmarks/throughput.py --examples runs/quickstart/4-build/examples.jsonl [--out results/throughput.json]

A rate is the rows' own tokens through the seconds between the end of the first step, which warms up, and of the last;
padding counts nothing. Memory is the peak of the whole process, with Python, torch and the weights in it. A ratio is
ours through TRL's in the same turn; its interval is Student's t over turns, on logarithms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gcg import ratio

from forethought.manifest import file_hash
from forethought.metrics import Figure
from forethought.report.results import write_results

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("ours", "trl")


def token_rows(model: str, examples: Path, n: int) -> list[Any]:
    """`n` of the examples as SCoT's rows, evenly spaced, so that both terms are there."""
    from forethought.models.weights import load_tokenizer
    from forethought.policy import default_policy
    from forethought.records import Example, read_jsonl
    from forethought.training.rows import tokenize

    rows = list(read_jsonl(examples, Example))
    chosen = rows[:: max(1, len(rows) // n)][:n]
    tokenizer = load_tokenizer(model)
    return [tokenize(row, tokenizer, default_policy(), "think", "short", 0) for row in chosen]


def ours(model: str, rows: Sequence[Any], config: Any, on_step: Callable[[], None], out: Path) -> dict[str, float]:
    """One run of our trainer."""
    from forethought.training.fit import train

    return train(model, rows, config, out, lambda *_: on_step())


def theirs(model: str, rows: Sequence[Any], config: Any, on_step: Callable[[], None], out: Path) -> dict[str, float]:
    """One run of TRL's trainer; nothing is set but what makes it train the same adapter, and keeps it quiet."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from forethought.models.weights import batches_in_bfloat16, resolve_model
    from forethought.training.trainer import lora

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            on_step()

    folder = resolve_model(model)
    dtype = "bfloat16" if batches_in_bfloat16() else "float32"
    base: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokens = [{"input_ids": list(row.input_ids), "labels": list(row.labels)} for row in rows]
    args = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        seed=config.seed,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
    )
    trainer = SFTTrainer(
        model=base,
        args=args,
        train_dataset=Dataset.from_list(tokens),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=lora(config, base.config.num_hidden_layers),
        callbacks=[Steps()],
    )
    trainer.train()
    return {}


def work(side: str, options: argparse.Namespace) -> None:
    """One process of a turn: trains and prints its rate, its peak memory and, of ours, its share of waiting."""
    from forethought.cli.terminal import quiet
    from forethought.models.machine import peak_gib
    from forethought.training.config import small_model

    quiet()
    config = small_model().model_copy(update={"batch_size": options.batch, "checkpoint_steps": 10_000})
    config = config.model_copy(update=json.loads(options.settings) if side == "ours" else {})
    rows = token_rows(options.model, options.examples, options.rows)
    ends: list[float] = []
    run = {"ours": ours, "trl": theirs}[side]
    with tempfile.TemporaryDirectory() as folder:
        counts = run(options.model, rows, config, lambda: ends.append(time.perf_counter()), Path(folder))
    tokens = sum(row.length for row in rows) * (len(ends) - 1) / len(ends)
    found = {"rate": tokens / (ends[-1] - ends[0]), "peak_gib": peak_gib(), "steps": float(len(ends))}
    print(json.dumps(found | {name: counts[name] for name in ("data_wait_share",) if name in counts}))


def turn(side: str, options: argparse.Namespace) -> dict[str, float]:
    """One side in a process of its own."""
    words = [sys.executable, str(Path(__file__).resolve()), "--worker", side, "--examples", str(options.examples)]
    for name in ("model", "rows", "batch", "settings"):
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{side}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def figures(turns: Sequence[dict[str, dict[str, float]]]) -> list[Figure]:
    """The ratios and what they are made of."""

    def column(side: str, name: str) -> list[float]:
        return [one[side][name] for one in turns]

    def mean(name: str, values: Sequence[float], unit: str) -> Figure:
        return Figure(name=name, value=sum(values) / len(values), n=len(values), unit=unit)

    return [
        ratio("throughput_ratio", column("ours", "rate"), column("trl", "rate")),
        ratio("memory_ratio", column("ours", "peak_gib"), column("trl", "peak_gib")),
        *(mean(f"throughput_{side}", column(side, "rate"), "tokens/s") for side in SIDES),
        *(mean(f"memory_{side}_gib", column(side, "peak_gib"), "GiB") for side in SIDES),
        mean("data_wait_share", [one["ours"].get("data_wait_share", float("nan")) for one in turns], "share of time"),
    ]


def main() -> None:
    """Measures in turns, prints the figures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=Path, required=True, help="Built training rows (examples.jsonl).")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--rows", type=int, default=96, help="Rows of a run, one epoch.")
    parser.add_argument("--batch", type=int, default=8, help="Rows a step.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--settings", default="{}", help="Training settings of ours that differ, as JSON.")
    parser.add_argument("--out", type=Path, help="Results file; only printed without it.")
    parser.add_argument("--worker", choices=SIDES, help="For the processes that this starts.")
    options = parser.parse_args()
    options.examples = options.examples.resolve()
    if options.worker is not None:
        work(options.worker, options)
        return
    turns = []
    for number in range(options.turns):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        turns.append({side: turn(side, options) for side in order})
    found = figures(turns)
    print(json.dumps([figure.model_dump() for figure in found], indent=2))
    if options.out is not None:
        inputs = {options.examples.name: file_hash(options.examples)}
        write_results(options.out, [0], inputs, found)


if __name__ == "__main__":
    main()
