"""A trained judge on disk and in memory: a weight a feature, two calibration numbers, and where they came from.

Stored as `judge.json` beside `weights.npz`, which is read without pickle: a judge from a
stranger can be wrong, and can't run code.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from forethought.errors import InputError
from forethought.evals.judges.base import Item, Measure
from forethought.evals.judges.features import FEATURES_VERSION, View, featurise
from forethought.manifest import write_json
from forethought.records import Record

Array = np.ndarray[Any, np.dtype[np.float64]]
_BATCH = 512
SETTINGS, WEIGHTS = "judge.json", "weights.npz"


class JudgeSettings(Record):
    """What a stored judge says of itself."""

    name: str
    measure: Measure
    features_version: int = FEATURES_VERSION
    view: View
    """Which features it reads (`features.py`)."""
    intercept: float
    slope: float
    """Platt's: probability = 1 / (1 + exp(-(slope * score + offset)))."""
    offset: float
    unsure: tuple[float, float]
    """A probability strictly between these is not decided."""
    partial_counts: bool = True
    """Whether partial refusals were taught as refusals."""
    rows: dict[str, int]
    """Rows by source that it was trained on."""
    calibrated_on: str
    """What was held out when the probabilities were calibrated: `sources`, `groups` or `nothing`."""
    seed: int = 0


@dataclass(frozen=True)
class LinearModel:
    """Settings and weights, shape (features,)."""

    settings: JudgeSettings
    weights: Array

    def scores(self, items: Sequence[Item]) -> Array:
        """Uncalibrated log-odds, shape (items,)."""
        batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
        parts = [featurise(batch, self.settings.view) @ self.weights for batch in batches]
        return np.concatenate(parts) + self.settings.intercept if parts else np.zeros(0)

    def probabilities(self, items: Sequence[Item]) -> Array:
        """Calibrated probabilities of the measure, shape (items,)."""
        return 1 / (1 + np.exp(-np.clip(self.settings.slope * self.scores(items) + self.settings.offset, -30, 30)))

    def save(self, folder: Path) -> None:
        """Writes both files. Only weights that are not zero are kept."""
        folder.mkdir(parents=True, exist_ok=True)
        places = np.flatnonzero(self.weights)
        with (folder / WEIGHTS).open("wb") as file:
            np.savez_compressed(file, size=len(self.weights), places=places, values=self.weights[places])
        write_json(folder / SETTINGS, self.settings.model_dump())


def load_model(folder: Path) -> LinearModel:
    """Reads a stored judge. Raises InputError where it is not one, is damaged, or is of another version."""
    if not (folder / SETTINGS).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(folder, "holds no trained judge", "Train one: forethought judge train FILE --out DIR")
    try:
        settings = JudgeSettings.model_validate(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        with np.load(folder / WEIGHTS, allow_pickle=False) as stored:
            weights = np.zeros(int(stored["size"]))
            weights[stored["places"]] = stored["values"]
    except (ValidationError, ValueError, KeyError, IndexError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(folder, f"is a damaged judge ({reason})", "Train it again") from None
    if settings.features_version != FEATURES_VERSION:
        raise InputError(folder, "was trained by another version of this program", "Train it again")
    return LinearModel(settings, weights)
