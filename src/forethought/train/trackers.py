"""Where losses go besides the terminal: TensorBoard's files, Weights & Biases, MLflow, through transformers' own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forethought.errors import ConfigError
from forethought.train.config import Tracker
from forethought.train.processes import is_first

FOLDER = "tensorboard"
"""In the training's folder. transformers' own default names the machine."""


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Raises ConfigError, with what to install, for a tracker that is not there."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"trackers: {name}", "is not installed", f"Run: pip install {name}")


def reported_to(trackers: Sequence[Tracker]) -> list[str]:
    """Names that transformers sets up by itself: all but TensorBoard, whose folder we choose."""
    return [name for name in trackers if name != "tensorboard"]


def tracker_callbacks(trackers: Sequence[Tracker], out: Path) -> list[Any]:
    """TensorBoard's callback, writing into `out`/tensorboard from the first process; none where it is not asked for."""
    if "tensorboard" not in trackers or not is_first():
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(log_dir=str(out / FOLDER)))]
