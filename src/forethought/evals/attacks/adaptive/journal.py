"""Every reply of a search on disk before the search sees it: one that is killed is run again on what was kept."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from forethought.errors import InputError
from forethought.records import AnyRecord, Record, cut_half_line

ReplyKind = Literal["response", "verdict", "log_prob", "text", "made"]


class Kept(Record):
    """One reply."""

    key: str
    """Hash of all that the reply depends on."""
    kind: ReplyKind
    value: Any = None
    """What JSON holds; None where there was no reply."""
    cause: str = ""
    """Why there was none."""


def digest(*parts: Any) -> str:
    """32 hexadecimal digits of anything that JSON holds."""
    joined = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Lines:
    """A file of records that only grows. A last line that a kill cut short is removed when it is opened."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            cut_half_line(path)
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._unsynced = False

    def add(self, record: BaseModel) -> None:
        """Hands a record to the operating system: it outlives this process from here on."""
        with self._lock:
            self._file.write(record.model_dump_json(exclude_defaults=True) + "\n")
            self._file.flush()
            self._unsynced = True

    def sync(self) -> None:
        """What was added is on disk when this returns: it outlives the machine's power, too."""
        if self._unsynced:
            os.fsync(self._file.fileno())
            self._unsynced = False

    def close(self) -> None:
        self.sync()
        self._file.close()


def read_lines(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """The records of a file, without a last line that was cut short. Raises InputError that names a damaged line."""
    if not path.is_file():
        return
    for number, line in _whole_lines(path):
        try:
            yield kind.model_validate_json(line)
        except ValidationError:
            raise InputError(
                f"{path}, line {number}", "is damaged", "Delete that line: what it held is asked again"
            ) from None


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield number, line


class Journal:
    """The replies of one search, by key."""

    def __init__(self, path: Path, retry_failed: bool = False) -> None:
        """`retry_failed` forgets those without a reply. Raises InputError for a damaged line."""
        self._known = {kept.key: kept for kept in read_lines(path, Kept) if not (retry_failed and kept.cause)}
        self._lines = Lines(path)

    def get(self, key: str) -> Kept | None:
        """The reply kept under a key."""
        return self._known.get(key)

    def put(self, kept: Kept) -> Kept:
        """Keeps a reply; a second one under the same key takes the place of the first. Gives it back as it was kept."""
        # As read back: a search sees the same on its first run and on a replay.
        kept = Kept.model_validate_json(kept.model_dump_json())
        self._lines.add(kept)
        self._known[kept.key] = kept
        return kept

    def sync(self) -> None:
        self._lines.sync()

    def close(self) -> None:
        self._lines.close()
