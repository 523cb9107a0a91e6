"""How long a training run takes: its arithmetic over the rate at which devices do it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from forethought.errors import ConfigError
from forethought.train.config import TrainConfig
from forethought.train.rows import TokenRow

_STEPS = 3


def hours(tokens: float, flops_a_token: float, flops_a_second: float) -> float:
    """Hours of training on so many tokens, all epochs counted; `flops_a_second` is that of all devices together."""
    return tokens * flops_a_token / flops_a_second / 3600.0


def measured_flops_a_second(base: str, rows: Sequence[TokenRow], config: TrainConfig, flops_a_token: float) -> float:
    """What this machine does: three steps are trained, the first is left out, and the result is thrown away.

    Raises ConfigError for fewer rows than that takes.
    """
    from forethought.train.fit import train

    needed = _STEPS * config.batch_size
    if len(rows) < needed:
        raise ConfigError("--measure", f"needs {needed} rows of examples, there are {len(rows)}", "Build more rows")
    # Evenly spaced: rows of a kind stand together.
    chosen = list(rows[:: len(rows) // needed][:needed])
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        once = config.model_copy(update={"epochs": 1.0, "checkpoint_steps": 1000})
        train(base, chosen, once, Path(folder), lambda *_: times.append(time.perf_counter()))
    tokens = sum(row.length for row in chosen) * (_STEPS - 1) / _STEPS
    return tokens * flops_a_token / (times[-1] - times[0])
