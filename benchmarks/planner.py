"""What `forethought plan` predicts against what happens: figures plan_memory_ratio_*, plan_time_ratio_*.

Trains the model for a few steps with settings that differ in what they keep and compute, each in a process of its own.
Memory: predicted over measured, what a model of one narrow layer takes left out: the framework. Processes give freed
blocks back to the system at once (MALLOC_MMAP_THRESHOLD_), so that the peak is what is in use, not what was; it is
that of the steps after the first, so that reading the weights is left out. Time: each setting's hours as predicted
from the rate that three steps of the first setting gave on this machine, over the hours it took. The machine has to
be quiet:

    python benchmarks/planner.py --out results/planner.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forethought.metrics import Figure

if TYPE_CHECKING:
    from forethought.training.config import TrainConfig
    from forethought.training.rows import TokenRow

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora_upper_layers": {"skip_layers": 8},
    "lora_attention_recomputed": {
        "rank": 64, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "gradient_checkpointing": True,
    },
    "full": {"method": "full", "learning_rate": 1e-5},
}  # fmt: skip
"""The first gives the rate that all are predicted with."""
BATCH = 4
SEED = 0


def configured(name: str) -> TrainConfig:
    """The training settings of one run."""
    from forethought.training.config import TrainConfig

    return TrainConfig.model_validate({"batch_size": BATCH, "checkpoint_steps": 1000, "seed": SEED, **SETTINGS[name]})


def rows_of(model: str, steps: int) -> list[TokenRow]:
    """Rows for so many steps, both terms alike: shipped requests, taught by rules as the paper walks them."""
    from forethought.data.shipped import shipped_requests
    from forethought.data.teach import Answer, teach
    from forethought.models.weights import load_tokenizer
    from forethought.policy import default_policy
    from forethought.training.rows import tokenize

    policy, tokenizer = default_policy(), load_tokenizer(model)
    per_term = steps * BATCH // 2
    harmful = [request for request in shipped_requests("harmful") if request.rules][:per_term]
    ordinary = list(shipped_requests("ordinary"))[:per_term]
    # What is answered matters to nobody here; its length is that of a short answer.
    answer = Answer(text="Here is one way to go about it, step by step. " * 4, complete=True)
    examples = [teach(request, policy, SEED, answer) for request in (*harmful, *ordinary)]
    return [tokenize(example, tokenizer, policy, "paper", "full", SEED) for example in examples]


def work(name: str, model: str, steps: int) -> None:
    """One process: trains by one setting and prints what it took."""
    from forethought.training.fit import train

    ended: list[float] = []
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(model, rows_of(model, steps), configured(name), Path(folder), noting(ended, peaks))
    # The first step is left out: it warms up. Rows are drawn alike for all steps.
    seconds = (ended[-1] - ended[0]) * len(ended) / (len(ended) - 1)
    print(json.dumps({"peak_gib": peaks[-1], "seconds": seconds}))


def noting(ended: list[float], peaks: list[float]) -> Callable[..., None]:
    """What is called after each step: notes when it was, and the most memory in use since the first step.

    Before that there are no moments yet, and there may have been more: a file of weights in float32, read into less.
    """

    def on_step(*_: object) -> None:
        if not ended:
            forget_peak()
        ended.append(time.perf_counter())
        peaks.append(peak())

    return on_step


def forget_peak() -> None:
    """Lets `peak` begin anew. A process's own peak can be forgotten on Linux alone; elsewhere loading counts."""
    import torch

    from forethought.models.machine import release_memory

    release_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM


def peak() -> float:
    """Most memory in use so far, in GiB: of the GPU, or of this process."""
    import torch

    from forethought.models.machine import peak_gib

    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else peak_gib()


def framework(name: str, model: str) -> None:
    """One process: prints what training takes where the model is next to nothing, two steps of short rows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from forethought.models.weights import load_tokenizer, resolve_model
    from forethought.training.fit import train
    from forethought.training.rows import TokenRow

    shape = AutoConfig.from_pretrained(resolve_model(model))
    narrow = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    for field, value in {**narrow, "num_hidden_layers": 1, "head_dim": 32, "layer_types": None}.items():
        setattr(shape, field, value)
    cut = [TokenRow(input_ids=row.input_ids[-16:], labels=row.labels[-16:], term=row.term) for row in rows_of(model, 2)]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "model"
        AutoModelForCausalLM.from_config(shape).save_pretrained(small)
        load_tokenizer(model).save_pretrained(small)
        peaks: list[float] = []
        config = configured(name).model_copy(update={"skip_layers": 0})
        train(str(small), cut, config, Path(folder) / "out", noting([], peaks))
    print(json.dumps({"peak_gib": peaks[-1]}))


def rate_of(name: str, model: str) -> None:
    """One process: prints operations a second, as `forethought plan --measure` finds them."""
    from forethought.research.plan import measured_flops_a_second

    rows = rows_of(model, 3)
    found = predicted(name, model, rows, 1.0)
    print(json.dumps({"rate": measured_flops_a_second(model, rows, configured(name), found["flops_a_token"])}))


def predicted(name: str, model: str, rows: Sequence[TokenRow], rate: float) -> dict[str, float]:
    """GiB, operations a token and seconds, as `forethought plan` has them."""
    from forethought.models.weights import batches_in_bfloat16
    from forethought.research.footprint import Devices
    from forethought.research.plan import architecture, counted, plan

    devices = Devices(weight_bytes=2 if batches_in_bfloat16() else 4)
    found = plan(model, architecture(model), configured(name), counted(rows), devices, 1000.0, rate)
    return {
        "gib": found.needed_gib, "flops_a_token": found.footprint.flops_a_token, "seconds": found.hours * 3600,
    }  # fmt: skip


def child(args: argparse.Namespace, mode: str, name: str) -> dict[str, float]:
    """What a process of this file printed last."""
    line = [sys.executable, __file__, "--model", args.model, "--steps", str(args.steps), f"--{mode}", name]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    loaded: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def figures(args: argparse.Namespace) -> list[Figure]:
    """Both ratios of every setting."""
    rows = rows_of(args.model, args.steps)
    rate = child(args, "rate-of", next(iter(SETTINGS)))["rate"]
    found: list[Figure] = []
    for name in args.only or SETTINGS:
        said, took = predicted(name, args.model, rows, rate), child(args, "worker", name)
        gib = took["peak_gib"] - child(args, "framework", name)["peak_gib"]
        line = f"predicted {said['gib']:.2f} GiB, {said['seconds']:.1f} s; took {gib:.2f}, {took['seconds']:.1f}"
        print(f"{name}: {line}", flush=True)
        for what, value in (("memory", said["gib"] / gib), ("time", said["seconds"] / took["seconds"])):
            found.append(Figure(name=f"plan_{what}_ratio_{name}", value=value, n=args.steps, unit="predicted/measured"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--steps", type=int, default=8, help="Steps a setting.")
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS), help="These settings alone.")
    parser.add_argument("--out", type=Path, help="Results file to write; without it, figures are printed.")
    parser.add_argument("--worker", choices=list(SETTINGS), help="For the processes that this starts.")
    parser.add_argument("--rate-of", choices=list(SETTINGS), help="For the processes that this starts.")
    parser.add_argument("--framework", choices=list(SETTINGS), help="For the processes that this starts.")
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.model, args.steps)
    elif args.rate_of:
        rate_of(args.rate_of, args.model)
    elif args.framework:
        framework(args.framework, args.model)
    else:
        written(figures(args), args)


def written(found: list[Figure], args: argparse.Namespace) -> None:
    """Figures to a results file, or to the terminal."""
    if args.out is None:
        print(json.dumps({figure.name: round(figure.value, 3) for figure in found}, indent=2))
        return
    from forethought.report.results import write_results

    write_results(args.out, [SEED], {}, found)


if __name__ == "__main__":
    main()
