"""One writer at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forethought.errors import StageError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`. The operating system lets go of it when the process ends, killed or not.

    Raises StageError where another process, or another part of this one, holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            raise StageError(
                path.parent,
                f"another run is writing here (process {holder or 'unknown'})",
                "Wait for it or stop it, or give another folder",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
