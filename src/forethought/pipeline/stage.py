"""Stages: each writes files and a manifest into a folder of its own, and runs again only when its inputs changed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forethought.disk import require, told_when_full
from forethought.errors import StageError
from forethought.manifest import git_commit, key_of, let_read, now, versions, write_json
from forethought.models.machine import peak_gib, release_memory

MANIFEST = "manifest.json"
TITLES = {
    "1-select": "reading the sources",
    "2-evolve": "restyling requests",
    "3-answers": "asking the model for its own answers",
    "4-build": "writing the reasoning",
    "5-train": "training",
    "6-calibrate": "setting the threshold",
    "7-respond-base": "attacking the base model",
    "7-respond-prompt": "attacking the base model with a safety prompt",
    "7-respond-scot": "attacking the trained model",
    "8-probe": "fitting the probe",
    "8-fuse": "fusing verdict and probe",
    "9-respond-scot_best": "attacking the best defence",
}
"""What the stages of a run do, in their order, for whoever waits."""


class StageRunner:
    """Runs stages of one run folder in order; a stage's key covers its own configuration and all keys before it."""

    def __init__(self, folder: Path, say: Callable[[str], None], after: str = "", last: str = "4-build") -> None:
        """`after` is the key of what stands before the first stage, such as the last stage of another runner; `last`
        is the last of `TITLES` that will be run."""
        self.folder = folder
        self._say = say
        self._count = list(TITLES).index(last) + 1
        self._chain = after
        self.seconds = 0.0
        """Time that all stages took when they ran, cached ones included."""
        self.peak_gib = 0.0

    @property
    def key(self) -> str:
        """Covers everything that the last stage's result depends on."""
        return self._chain

    def title(self, name: str) -> str:
        """What a stage does and how many there are: `training (5 of 12)`."""
        return f"{TITLES[name]} ({list(TITLES).index(name) + 1} of {self._count})"

    def finished(self, name: str) -> bool:
        """Whether the folder holds a finished stage of this name, of whatever configuration."""
        return bool(self.manifest(name).get("finished"))

    def manifest(self, name: str) -> dict[str, Any]:
        """What a stage of this name noted when it last ran, of whatever configuration; empty where it never did."""
        return _manifest(self.folder / name)

    def depend_on(self, config: Mapping[str, Any]) -> None:
        """Makes the stages that follow depend on what no stage before them stands for."""
        self._chain = key_of({"config": config, "before": self._chain})

    def pass_over(self, name: str, config: Any) -> Path:
        """The folder of a stage that is not run; those that follow are known by it as if it had been."""
        self._chain = self._key(name, config)
        return self.folder / name

    def run(
        self,
        name: str,
        config: Any,
        work: Callable[[Path], dict[str, Any]],
        keep_partial: bool = False,
        grows: str = "",
    ) -> Path:
        """Runs `work(folder)` unless the folder already holds its result; returns the folder.

        `work` returns counts for the manifest. With `keep_partial`, what an interrupted run
        of the same key left in the folder is kept for it to resume from; else it is removed.
        `grows` is a field of the configuration that no part of the result depends on: where that alone is another,
        what is there is kept likewise.
        A result of which rows or weights were cut short since is none: what is damaged is removed and made again.
        Raises StageError when the disk is full; nothing half written is kept as done.
        """
        lasting = self._key(name, {field: config[field] for field in config if field != grows}) if grows else None
        self._chain = key = self._key(name, config)
        folder = self.folder / name
        done = _manifest(folder)
        damaged = _damaged(folder, done)
        if damaged:
            self._say(f"[yellow]{name}: {', '.join(damaged)} was cut short since, and is made again[/yellow]")
        if done.get("key") == key and done.get("finished") and not damaged:
            self._add(done)
            self._say(f"[dim]{name}: kept from before ({_counts(done['counts'])})[/dim]")
            return folder
        spent = 0.0
        if folder.exists():
            if keep_partial and (done.get("key") == key or (grows and done.get("lasting") == lasting)):
                spent = _spent(folder, done)
                for file in damaged:
                    (folder / file).unlink(missing_ok=True)
            else:
                shutil.rmtree(folder)
        known = {"key": key, "stage": name, "config": config} | ({"lasting": lasting} if grows else {})
        self._start(folder, known | {"started": now(), "spent": spent})
        began = time.monotonic()
        with told_when_full(folder):
            counts = work(folder)
            let_read(folder, folder / MANIFEST)
            manifest = known | {
                "counts": counts,
                "files": _sizes(folder),
                "seconds": round(spent + time.monotonic() - began, 1),
                "peak_gib": round(peak_gib(), 2),
                "commit": git_commit(),
                "versions": versions(),
                "finished": now(),
            }
            write_json(folder / MANIFEST, manifest)
        release_memory()
        self._add(manifest)
        self._say(f"[green]{name}[/green]: {_counts(counts)} [dim]({manifest['seconds']:.0f} s)[/dim]")
        return folder

    def _key(self, name: str, config: Any) -> str:
        return key_of({"stage": name, "config": config, "before": self._chain})

    def _start(self, folder: Path, note: dict[str, Any]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            require(folder)
            with told_when_full(folder):
                write_json(folder / MANIFEST, note)
        except OSError as error:
            fix = "Give another folder with --out"
            raise StageError(folder, f"can't be written ({error.strerror})", fix) from None

    def _add(self, manifest: dict[str, Any]) -> None:
        self.seconds += float(manifest["seconds"])
        self.peak_gib = max(self.peak_gib, float(manifest["peak_gib"]))


def _spent(folder: Path, note: dict[str, Any]) -> float:
    """Seconds that runs of a stage took; interrupted ones each from its start's note to the last file that it wrote."""
    if note.get("finished"):
        return float(note["seconds"])
    # By the note's own time rather than what stands in it: a copied folder has new times, and then nothing is added.
    began = (folder / MANIFEST).stat().st_mtime
    last = max(file.stat().st_mtime for file in folder.rglob("*") if file.is_file())
    return float(note.get("spent", 0.0)) + last - began


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes by name of the rows and weights in a folder. They are written once, where settings may be written anew."""
    kept = (file for file in sorted(folder.glob("*")) if file.suffix in (".jsonl", ".safetensors"))
    return {file.name: file.stat().st_size for file in kept}


def _damaged(folder: Path, done: Mapping[str, Any]) -> list[str]:
    """Files of a finished stage that are shorter than they were written."""
    sizes = _sizes(folder)
    return [name for name, size in done.get("files", {}).items() if sizes.get(name, 0) < size]


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return {}  # half a manifest is none: the stage runs again
    return loaded if isinstance(loaded, dict) else {}


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in counts.items()
        if isinstance(value, int | float | str)
    )
