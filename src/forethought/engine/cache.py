"""The cache folder: what is made once on a machine, and by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from forethought.store import locked

T = TypeVar("T")


def cache_folder() -> Path:
    """Where converted models are kept: FORETHOUGHT_CACHE, else the user's cache folder."""
    own = os.environ.get("FORETHOUGHT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(own) if own else base / "forethought"


def load_or_make(folder: Path, load: Callable[[Path], T | None], make: Callable[[Path], T]) -> T:
    """What `load` finds in a folder, else what `make` writes there; None from `load` stands for "not whole".

    Of two processes one makes it and the other waits: a folder that is read from is never written anew.
    `make` writes a folder beside it, so that a killed process leaves no half of one.
    """
    found = load(folder)
    if found is not None:
        return found
    with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
        found = load(folder)
        if found is not None:
            return found
        part = folder.with_name(f"{folder.name}.part")
        for left in (part, folder):  # by a killed process, or damaged
            shutil.rmtree(left, ignore_errors=True)
        made = make(part)
        part.rename(folder)
        return made
