"""The one store on disk: JSON lines that are only added to, each under a key, and a lock that lets one process write.

Everything that may be killed and goes on where it was stands on this: replies, verdicts, searches, paid answers.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from forethought.errors import InputError, StageError
from forethought.manifest import replacing
from forethought.records import AnyRecord

_HEAD = '{"id":'
_MIDDLE = ',"value":'
_SYNC_LINES = 256
_SYNC_S = 1.0
_DECODER = json.JSONDecoder()


class Store:
    """One value a key, in a file. What is added is with the operating system when `add` returns, so that a killed
    process loses nothing, and on disk soon after: a power cut loses at most the last second, and nothing of what
    was added before a `sync`.

    Memory: some 200 bytes a line, whatever its length. One writer at a time; threads may share it.
    """

    def __init__(self, path: Path, write: bool = False) -> None:
        """Reads where each key stands. A last line that a kill cut short is passed over, and removed by a writer.

        Raises InputError for a damaged line elsewhere.
        """
        self.path = path
        self._places: dict[str, int] = {}
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._unsynced, self._synced_at = 0, time.monotonic()
        self._reader: BinaryIO | None = None
        self._writer: BinaryIO | None = None
        self._end = self._scan() if path.is_file() else 0
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = path.open("ab")
            self._writer.truncate(self._end)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def add(self, key: str, value: Any) -> None:
        """Keeps a value, a record or what JSON holds. A later value of a key takes the place of the earlier one."""
        is_record = isinstance(value, BaseModel)
        text = value.model_dump_json(exclude_defaults=True) if is_record else json.dumps(value)
        line = f"{_HEAD}{json.dumps(key)}{_MIDDLE}{text}}}\n".encode()
        with self._lock:
            assert self._writer is not None, "opened for reading"
            self._writer.write(line)
            self._writer.flush()
            self._places[key] = self._end
            self._end += len(line)
            self._unsynced += 1
            if self._unsynced >= _SYNC_LINES or time.monotonic() - self._synced_at > _SYNC_S:
                self.sync()

    def get(self, key: str) -> Any | None:
        """The value of a key, parsed; None where there is none. Raises InputError where its line is damaged."""
        with self._lock:
            place = self._places.get(key)
            if place is None:
                return None
            if self._reader is None:
                self._reader = self.path.open("rb")
            self._reader.seek(place)
            line = self._reader.readline()
        try:
            return json.loads(line)["value"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise self._damaged(f"the line of {key}", "is damaged") from None

    def read(self, key: str, kind: type[AnyRecord]) -> AnyRecord | None:
        """The value of a key as a record; None where there is none. Raises InputError where it is not of that kind."""
        value = self.get(key)
        if value is None:
            return None
        try:
            return kind.model_validate(value)
        except ValidationError:
            raise self._damaged(f"the line of {key}", f"is not a {kind.__name__}") from None

    def records(self, kind: type[AnyRecord]) -> dict[str, AnyRecord]:
        """All values by key, for stores that fit into memory. Raises InputError where one is not of that kind."""
        return {key: record for key in self._places if (record := self.read(key, kind)) is not None}

    def sync(self) -> None:
        """What was added is on disk when this returns. Threads that wait here for one another share a sync."""
        with self._sync_lock:
            if self._unsynced and self._writer is not None:
                self._unsynced, self._synced_at = 0, time.monotonic()
                os.fsync(self._writer.fileno())

    def close(self) -> None:
        """All on disk, and the files closed."""
        with self._lock:
            self.sync()
            for file in (self._writer, self._reader):
                if file is not None:
                    file.close()
            self._writer = self._reader = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _scan(self) -> int:
        """Where the last whole line ends, in bytes."""
        end = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._places[self._key_of(line, number)] = end
                end += len(line)
        return end

    def _key_of(self, line: bytes, number: int) -> str:
        try:
            text = line.decode("utf-8")
            key, stop = _DECODER.raw_decode(text, len(_HEAD))
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise self._damaged(f"line {number}", "is damaged") from None
        whole = text.startswith(_HEAD) and text.startswith(_MIDDLE, stop) and text.endswith("}\n")
        if not isinstance(key, str) or not whole:
            raise self._damaged(f"line {number}", "is damaged")
        return key

    def _damaged(self, place: str, rule: str) -> InputError:
        return InputError(f"{self.path}, {place}", rule, "Delete that line: what it holds is made again")


def read_store(path: Path, kind: type[AnyRecord]) -> dict[str, AnyRecord]:
    """All records of a store by key; none where there is no file. Raises InputError for a damaged line."""
    with Store(path) as store:
        return store.records(kind)


def rewrite(path: Path, rows: Iterable[tuple[str, Any]]) -> None:
    """Writes a store anew: beside the path, then moved into place, so that no half file is kept."""
    with replacing(path) as part:
        part.unlink(missing_ok=True)
        with Store(part, write=True) as store:
            for key, value in rows:
                store.add(key, value)


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Holds the lock file `path`. The operating system lets go of it when the process ends, killed or not.

    Where another process, or another part of this one, holds it: waits for it, or raises StageError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise StageError(
            path.parent, "another run is writing here", "Wait for it or stop it, or give another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
