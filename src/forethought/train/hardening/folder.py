"""The files of a hardening: which run a folder belongs to, what each round left, and the best round as the result."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forethought.engine.settings import SETTINGS_FILE, Settings, write_settings
from forethought.errors import InputError, ModelError
from forethought.manifest import write_json
from forethought.train.hardening.result import RoundResult

TABLE_FILE = "hardening.json"
"""In the training's folder: its rounds, and which of them is the result."""
_OWN = "hardening"
"""In a round's folder: plans, replies and results, which are no part of the model."""


def round_folder(out: Path, number: int) -> Path:
    """Where a round's model stands."""
    return out / f"round-{number}"


def own_folder(out: Path, number: int) -> Path:
    """Where a round's attacks, rows and results stand."""
    return round_folder(out, number) / _OWN


def claim(out: Path, key: str) -> None:
    """Marks the folder as this hardening's. Raises ModelError where rounds of another one stand there."""
    path = out / TABLE_FILE
    if path.is_file():
        if read_json(path).get("key") != key:
            rule = "holds the rounds of another hardening (other model, rows or settings)"
            raise ModelError(out, rule, "Give another folder")
        return
    write_json(path, {"key": key, "best": None, "rounds": []})


def write_table(out: Path, key: str, results: Sequence[RoundResult], best: int | None) -> None:
    """Writes the rounds so far; `best` None is a hardening that goes on."""
    rounds = [one.model_dump(mode="json") for one in results]
    write_json(out / TABLE_FILE, {"key": key, "best": best, "rounds": rounds})


def publish(out: Path, number: int, settings: Settings) -> None:
    """A round's model becomes the result: its files are copied, and the settings are written last."""
    for file in sorted(round_folder(out, number).iterdir()):
        if file.is_file() and file.name != SETTINGS_FILE and not file.name.endswith(".part"):
            part = out / f"{file.name}.part"
            shutil.copyfile(file, part)
            os.replace(part, out / file.name)
    write_settings(out, settings)


def read_json(path: Path) -> Any:
    """What one of these files holds. Raises InputError for a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        raise InputError(path, "is damaged", "Delete the folder and train again") from None
