"""The folder of an attack run: whose it is, so that replies of two models never stand in one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from forethought.engine.settings import Settings
from forethought.errors import ConfigError, InputError
from forethought.manifest import write_json
from forethought.records import Record

RUN_FILE = "attack.json"
SEARCHES = "searches"
CONTROL = "control"


class RunRecord(Record):
    """Whose run a folder holds, and how it was made."""

    model: str
    """As its user names it, the defence behind it."""
    name: str
    """As reports call it."""
    files: tuple[tuple[str, int, int], ...] = ()
    """Names, sizes and times of the model's files."""
    settings: Settings | None = None
    """What stands beside a trained model."""
    seed: int = 0
    max_answer_tokens: int = 64
    suite: str = ""
    sources: tuple[str, ...] = ()
    """How benchmarks and controls were read."""
    says: str = ""
    """How much was planned, how fast it went."""
    searches_not_run: dict[str, str] = Field(default_factory=dict)
    attempts_per_s: float | None = None
    cost: float | None = None
    """US dollars for the attacked model; None where no price is known."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Styles of the training manifest; empty where there is none."""
        return self.settings.seen_operators if self.settings is not None else ()


def default_folder(model: str, defence: str | None = None) -> Path:
    """`runs/attack-NAME`; a folder's name has its parent's before it, since stages of two runs share theirs.

    Defences stand behind it by their names.
    """
    path = Path(model)
    parts = path.resolve().parts[-2:] if path.is_dir() else path.parts[-2:]
    around = [one.partition(":")[0] for one in (defence or "").split("|")]
    name = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join([*parts, *around])).strip("-.") or "model"
    return Path("runs") / f"attack-{name}"


def read_run(folder: Path) -> RunRecord:
    """The record of a run. Raises InputError where there is none, or it is damaged."""
    path = folder / RUN_FILE
    if not path.is_file():
        raise InputError(folder, "holds no attack run", "Run: forethought attack MODEL --out FOLDER")
    try:
        return RunRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, ValidationError):
        raise InputError(path, "is damaged", "Delete it and run the same command again: replies are kept") from None


def write_run(folder: Path, run: RunRecord) -> float | None:
    """Writes the record in one step; returns the attempts a second of an earlier run there, None where there is none.

    Raises ConfigError where the folder holds another model's run.
    """
    rate = None
    if (folder / RUN_FILE).is_file():
        held = read_run(folder)
        rate = held.attempts_per_s
        if (held.model, held.files) != (run.model, run.files):
            raise ConfigError(
                folder,
                f"holds a run of {held.model}" + (", as it was before" if held.model == run.model else ""),
                "Give another --out, or remove the folder",
            )
    content: dict[str, Any] = run.model_dump(mode="json")
    write_json(folder / RUN_FILE, content)
    return rate
