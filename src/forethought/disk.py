"""A full disk, told with how many bytes are needed and how many are free."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forethought.errors import StageError

LEAST_BYTES = 64 * 1024**2
"""What any stage needs at least: its files and the logs beside them."""
_FIX = "Free some space, or give another folder with --out, and run the command again: it resumes"


def require(folder: Path, need: int = LEAST_BYTES, what: str = "the stage") -> None:
    """Raises StageError where fewer bytes are free than `what` needs."""
    if shutil.disk_usage(folder).free < need:
        raise full(folder, need, what)


@contextmanager
def told_when_full(folder: Path, need: int = LEAST_BYTES, what: str = "the stage") -> Iterator[None]:
    """Turns what libraries raise on a full disk into a StageError that names the need."""
    try:
        yield
    except Exception as error:
        if not _is_full(error, folder, need):
            raise
        raise full(folder, need, what) from None


def full(folder: Path, need: int, what: str) -> StageError:
    """The error for a disk that is full, or too full."""
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    return StageError(folder, f"the disk is full: {what} needs {need:,} bytes, {free:,} are free", _FIX)


def _is_full(error: Exception, folder: Path, need: int) -> bool:
    """Libraries wrap it: safetensors in an error of its own, torch in one of positions that names no cause."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    if isinstance(error, StageError):
        return False
    wrote = isinstance(error, RuntimeError) and ("inline_container" in str(error) or "PytorchStream" in str(error))
    return "No space left" in str(error) or shutil.disk_usage(folder).free < (need if wrote else LEAST_BYTES)
