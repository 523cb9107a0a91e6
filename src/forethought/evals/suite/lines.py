"""JSON lines that are only added to, each under an id, found again without holding them in memory."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from forethought.errors import InputError

_HEAD = '{"id":'
_MIDDLE = ',"value":'
_SYNC_LINES = 256
_SYNC_S = 1.0
_DECODER = json.JSONDecoder()


class Lines:
    """One value an id, in a file. What is added is with the operating system when `add` returns, so that a killed
    process loses nothing, and on disk soon after: a power cut loses at most the last second.

    Memory: some 200 bytes a line, whatever its length. One writer at a time; threads may share it.
    """

    def __init__(self, path: Path, write: bool = False) -> None:
        """Reads where each id stands. A last line that a kill cut short is passed over, and removed by a writer.

        Raises InputError for a damaged line elsewhere.
        """
        self.path = path
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
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

    def add(self, key: str, value_json: str) -> None:
        """Keeps a value, given as JSON in one line. A later value of an id takes the place of the earlier one."""
        line = f"{_HEAD}{json.dumps(key)}{_MIDDLE}{value_json}}}\n".encode()
        with self._lock:
            assert self._writer is not None, "opened for reading"
            self._writer.write(line)
            self._writer.flush()
            self._places[key] = self._end
            self._end += len(line)
            self._unsynced += 1
            if self._unsynced >= _SYNC_LINES or time.monotonic() - self._synced_at > _SYNC_S:
                self._sync()

    def get(self, key: str) -> Any | None:
        """The value of an id, parsed; None where there is none. Raises InputError where its line is damaged."""
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
            raise self._damaged(f"the line of {key}") from None

    def close(self) -> None:
        """All on disk, and the files closed."""
        with self._lock:
            if self._writer is not None:
                self._sync()
                self._writer.close()
            if self._reader is not None:
                self._reader.close()
            self._writer = self._reader = None

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        assert self._writer is not None
        os.fsync(self._writer.fileno())
        self._unsynced, self._synced_at = 0, time.monotonic()

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
            raise self._damaged(f"line {number}") from None
        whole = text.startswith(_HEAD) and text.startswith(_MIDDLE, stop) and text.endswith("}\n")
        if not isinstance(key, str) or not whole:
            raise self._damaged(f"line {number}")
        return key

    def _damaged(self, place: str) -> InputError:
        return InputError(f"{self.path}, {place}", "is damaged", "Delete that line: what it holds is made again")
