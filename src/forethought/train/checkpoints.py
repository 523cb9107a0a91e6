"""Checkpoints that a run may go on from: its own, and whole."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from forethought.errors import ModelError
from forethought.manifest import write_json
from forethought.train.processes import is_first


def claim(out: Path, key: str) -> None:
    """Marks the folder as this training's: going on from other rows or settings would keep the old weights.

    Raises ModelError where checkpoints of another training stand there.
    """
    file = out / "checkpoints" / "training.json"
    if last_checkpoint(out) is not None and file.is_file() and json.loads(file.read_text(encoding="utf-8")) != key:
        raise ModelError(
            out, "holds checkpoints of another training (other model, rows or settings)", "Give another folder"
        )
    if is_first():
        write_json(file, key)


def last_checkpoint(out: Path) -> Path | None:
    """The newest complete checkpoint of a run; a half-written one is passed over."""
    found = sorted(
        (out / "checkpoints").glob("checkpoint-*"),
        key=lambda path: int(path.name.rpartition("-")[2]),
        reverse=True,
    )
    return next((path for path in found if _complete(path)), None)


def _complete(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint can be read; the trainer's state is written last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(zipfile.is_zipfile(file) for pattern in ("*.pt", "*.pth", "*.bin") for file in checkpoint.glob(pattern))
