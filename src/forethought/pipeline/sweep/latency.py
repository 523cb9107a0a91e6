"""How much longer a defence takes than the undefended model, side by side in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from forethought.engine.conversation import Conversation, Failed, Respondent
from forethought.errors import StageError
from forethought.evals.metrics import Figure
from forethought.manifest import write_json
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.sweep.evaluation import LatencyConfig
from forethought.pipeline.sweep.material import Ground
from forethought.progress import Progress

LATENCY = "latency"
"""Name of the stage, and of its figure."""


def latency_cell(
    name: str,
    config: LatencyConfig,
    ground: Ground,
    defended: Callable[[], Respondent],
    base: Callable[[], Respondent],
    stages: StageRunner,
    progress: Progress,
) -> list[float]:
    """Times as long as the base model that the defence takes, for each of some ordinary requests, one at a time.

    Both are asked each request right after each other, the first of them in turn: a machine that slows down slows
    both. Raises StageError where one of them has no answer.
    """
    asked = [one.conversation for one in ground.attempts if "ordinary" in one.cells][: config.requests]

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(asked))
        both = (base(), defended())
        for one in both:
            _seconds(one, asked[0], config.max_answer_tokens)  # the first call of all is slow
        ratios = []
        for place, conversation in enumerate(asked):
            order = (0, 1) if place % 2 else (1, 0)
            took = {which: _seconds(both[which], conversation, config.max_answer_tokens) for which in order}
            ratios.append(took[1] / took[0])
            bar.advance(1)
        write_json(out / "ratios.json", ratios)
        return {"requests": len(ratios), "median": round(float(np.median(ratios)), 2)}

    with progress.bar(f"latency {name}") as bar:
        said = {"latency": config.model_dump(mode="json"), "asked": [one.model_dump(mode="json") for one in asked]}
        folder = stages.run(ground.stage(LATENCY), said, work)
    found: list[float] = json.loads((folder / "ratios.json").read_text(encoding="utf-8"))
    return found


def _seconds(model: Respondent, conversation: Conversation, max_tokens: int) -> float:
    start = time.perf_counter()
    (reply,) = model.reply([conversation], max_tokens)
    if isinstance(reply, Failed):
        raise StageError(f"latency of {model.name}", reply.cause, "Leave `latency` out of the sweep")
    return time.perf_counter() - start


def latency_figure(ratios: Sequence[float]) -> Figure:
    """The geometric mean of the ratios, with Student's interval of their logarithms."""
    logs = np.log(ratios)
    low, high = np.exp(ttest_1samp(logs, 0.0).confidence_interval())
    value = float(np.exp(logs.mean()))
    return Figure(name=LATENCY, value=value, low=float(low), high=float(high), n=len(logs), unit="times the base model")
