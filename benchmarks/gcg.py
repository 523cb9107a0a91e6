"""Is our GCG as fast as nanoGCG? Same model, message, target, candidates and steps, in turns.

    pip install --no-deps nanogcg==0.3.0
    python benchmarks/gcg.py [--candidates 512] [--steps 2] [--repeats 5] [--threads N] [--clock wall|cpu]

nanoGCG 0.3.0 pins transformers <= 4.47.1, so that it can't stand among the development dependencies and is installed
without its own. Two things are mended from outside, and nothing of it is changed: it hands caches on as nested lists
of keys and values, which transformers 5 no longer takes (`Legacy` translates them at the model's door); and it deletes
the BOS token wherever the chat template writes it, which on the embedded model's ChatML opens every turn (its
tokenizer is told of no BOS). It is measured with its default batch, all candidates at once, and with our batch of 32;
the ratio is to the faster of the two.

A ratio is nanoGCG's seconds through ours in the same turn, of whole runs without the loading and the list of allowed
tokens; its interval is Student's t over turns, on logarithms. Both start from the same ids, and have to agree on their
loss. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import json
import math
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from others import given
from scipy.stats import t as student
from transformers import DynamicCache

from forethought.attacks.searches.base import Goal
from forethought.attacks.searches.weights.gcg import Setting, problem, start, step
from forethought.metrics import Figure
from forethought.models.local import LocalModel
from forethought.records import user_request

MESSAGE = "What colour is the sky?"
TARGET = "Sure, the sky is green"
INIT = " !" * 20
BATCH = 32
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""The processor's own time, with one thread, is what a busy machine still measures; it is no use with a GPU."""
INSTALL = "pip install --no-deps nanogcg==0.3.0"


class Legacy(torch.nn.Module):
    """A model that takes and returns a cache as transformers did up to 4.47: a tuple of (keys, values) by layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.device, self.dtype = model.device, model.dtype

    def get_input_embeddings(self) -> Any:
        """The model's own."""
        return self.model.get_input_embeddings()

    def forward(self, inputs_embeds: torch.Tensor, past_key_values: Any = None, use_cache: bool = False) -> Any:
        """Logits at every position, and the cache where it is wanted."""
        cache = DynamicCache(past_key_values) if past_key_values else DynamicCache()
        made = self.model(inputs_embeds=inputs_embeds, past_key_values=cache, use_cache=use_cache)
        known = tuple((layer.keys, layer.values) for layer in cache.layers) if use_cache else None
        return SimpleNamespace(logits=made.logits, past_key_values=known)


def missing() -> str:
    """Why nothing can be measured; empty where it can."""
    return "" if importlib.util.find_spec("nanogcg") else f"nanoGCG is not installed: {INSTALL}"


def ours(model: LocalModel, candidates: int, steps: int) -> Callable[[int], float]:
    """A run by its seed, which returns the loss of the first suffix."""
    goal = Goal(user_request(MESSAGE), TARGET)

    def run(seed: int) -> float:
        made = problem((goal,), model, "skip", Setting(candidates=candidates), str(seed))
        state = start(made)
        first = state.loss
        for number in range(1, steps + 1):
            state = step(made, state, number)
        return first

    return run


def theirs(model: LocalModel, candidates: int, steps: int, batch: int | None) -> Callable[[int], float]:
    """The same of nanoGCG."""
    nanogcg: Any = importlib.import_module("nanogcg.gcg")
    nanogcg.logger.setLevel("ERROR")
    config = nanogcg.GCGConfig(
        num_steps=steps, search_width=candidates, topk=256, batch_size=batch, optim_str_init=INIT, verbosity="ERROR"
    )
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.bos_token = None
    attack = nanogcg.GCG(Legacy(model.model), tokenizer, config)
    firsts: list[float] = []
    fill = attack.init_buffer

    def watched() -> Any:
        buffer = fill()
        firsts.append(float(buffer.get_lowest_loss()))
        return buffer

    attack.init_buffer = watched

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        attack.run([{"role": "user", "content": MESSAGE + "{optim_str}"}], TARGET)
        return firsts[-1]

    return run


def ratio(name: str, slow: Sequence[float], fast: Sequence[float]) -> Figure:
    """Geometric mean of the turns' ratios, with its 95 % interval."""
    logs = np.log(np.array(slow) / np.array(fast))
    mean, n = float(logs.mean()), len(logs)
    half = float(student.ppf(0.975, n - 1)) * float(logs.std(ddof=1)) / math.sqrt(n) if n > 1 else None
    low, high = (None, None) if half is None else (math.exp(mean - half), math.exp(mean + half))
    return Figure(name=name, value=math.exp(mean), low=low, high=high, n=n, unit="ratio")


def gcg_speed(
    candidates: int = 512, steps: int = 2, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[Figure]:
    """`gcg_speed_ratio` first, then the ratio to each of nanoGCG's batches and our seconds a step.

    Raises ModelError without the embedded model and RuntimeError where the two don't agree on a loss; call `missing`
    first.
    """
    model = LocalModel.load("embedded")
    runs = {
        "ours": ours(model, candidates, steps),
        "nanogcg_all": theirs(model, candidates, steps, None),
        f"nanogcg_{BATCH}": theirs(model, candidates, steps, BATCH),
    }
    firsts = {name: run(0) for name, run in _warm(model).items()}
    if max(firsts.values()) - min(firsts.values()) > 1e-3:
        raise RuntimeError(f"losses of the same suffix differ: {firsts}")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        # Each turn begins with another of them, so that none always runs on the warm machine.
        names = list(runs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = clock()
            runs[name](turn)
            seconds[name].append((clock() - began) / steps)
    faster = min((name for name in runs if name != "ours"), key=lambda name: sum(seconds[name]))
    figures = [ratio("gcg_speed_ratio", seconds[faster], seconds["ours"])]
    figures += [ratio(f"gcg_speed_ratio_{name}", seconds[name], seconds["ours"]) for name in runs if name != "ours"]
    return [
        *figures,
        *(
            Figure(name=f"gcg_s_a_step_{name}", value=float(np.median(seconds[name])), n=repeats, unit="s")
            for name in runs
        ),
    ]


def _warm(model: LocalModel) -> dict[str, Callable[[int], float]]:
    return {"ours": ours(model, BATCH, 1), "nanogcg": theirs(model, BATCH, 1, BATCH)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    why = missing()
    figures = [] if why else gcg_speed(options.candidates, options.steps, options.repeats, CLOCKS[options.clock])
    printed: dict[str, Any] = {
        "command": given("gcg.py", options),
        "figures": [figure.model_dump() for figure in figures],
    }
    print(json.dumps(printed | ({"missing": {"gcg_speed_ratio": why}} if why else {}), indent=2))


if __name__ == "__main__":
    main()
