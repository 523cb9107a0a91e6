"""The audit log: one line a decision, each bound to the one before by its hash, so that none can be changed, left out
or put in without `verify` saying where.

Lines are only added. What a kill or a full disk cut short stays, is closed, and the next line says how it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from forethought.errors import ForethoughtError, InputError
from forethought.records import Record
from forethought.store import locked

FIRST = "0" * 64
"""What the first line of a log is bound to."""
_SYNC_S = 1.0
_TAIL_BYTES = 1 << 20
"""How far back from the end the last line is looked for: more than any line has."""


class AuditError(ForethoughtError):
    """A line that could not be kept."""


class Verified(Record):
    """What a log that was verified holds."""

    lines: int
    first: int
    """Number of its first line: above 1 where older files were moved away."""
    mended: int
    """Lines that a kill or a full disk cut short, each closed and accounted for."""
    head: str
    """Hash of the last line. Kept elsewhere, it shows later that nothing was cut off at the end."""


class AuditLog:
    """A log that is open for writing; one process at a time. Threads may share it.

    An entry is with the operating system when `add` returns, so that a killed process loses nothing, and on disk within
    a second.
    """

    def __init__(self, path: Path, rotate_bytes: int = 64 << 20) -> None:
        """Goes on behind the last whole line. `rotate_bytes`: size from which the file is moved aside and a new one
        begun. Raises StageError where another process writes here, AuditError where it can't be written."""
        self.path = path
        self.failures = 0
        self._rotate_bytes = rotate_bytes
        self._lock = threading.Lock()
        self._held = ExitStack()
        self._held.enter_context(locked(path.with_name(path.name + ".lock")))
        self._closed = threading.Event()
        self._unsynced = False
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._number, self._head, self._broken = _end_of(path)
            if not self._number and (older := _older(path)):
                self._number, self._head, _ = _end_of(older[-1])
            self._mend()
        except OSError as error:
            self._held.close()
            raise _failed(path, error) from None
        except BaseException:  # a log that is damaged, too: the lock goes with it
            self._held.close()
            raise
        threading.Thread(target=self._sync_now_and_then, name="audit", daemon=True).start()

    def add(self, kind: str, **values: JsonValue) -> None:
        """Adds an entry. Raises AuditError where it could not be kept; the log can be used on."""
        with self._lock:
            try:
                self._mend()
                if self.path.stat().st_size >= self._rotate_bytes:
                    self._rotate()
                self._write(kind, values)
            except OSError as error:
                self.failures += 1
                raise _failed(self.path, error) from None

    def close(self) -> None:
        self._closed.set()
        self._sync()
        with self._lock:
            os.close(self._file)
            self._held.close()

    def _write(self, kind: str, values: dict[str, JsonValue]) -> None:
        number = self._number + 1
        body = {"number": number, "time": round(time.time(), 3), "kind": kind, **values, "previous": self._head}
        head = _hash(body)
        line = _text({**body, "hash": head}).encode() + b"\n"
        written = os.write(self._file, line)
        if written < len(line):
            self._broken += written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._number, self._head, self._unsynced = number, head, True

    def _mend(self) -> None:
        """Closes a line that was cut short, and says so in the next."""
        if not self._broken:
            return
        cut = _read(self.path, self.path.stat().st_size - self._broken, self._broken)
        if not cut.endswith(b"\n"):
            self._broken += os.write(self._file, b"\n")
            number, head, self._broken = _end_of(self.path)
            if not self._broken:  # the end of its line was all that it lacked
                self._number, self._head = number, head
                return
        cut = cut.rstrip(b"\n")
        self._write("mended", {"bytes": len(cut), "sha256": _digest(cut)})
        self._broken = 0

    def _rotate(self) -> None:
        """Moves the file aside, by the number of its last line, and begins a new one that is bound to it."""
        os.fsync(self._file)
        os.close(self._file)
        os.replace(self.path, self.path.with_name(f"{self.path.stem}-{self._number:012d}{self.path.suffix}"))
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _sync_now_and_then(self) -> None:
        while not self._closed.wait(_SYNC_S):
            self._sync()

    def _sync(self) -> None:
        """What was added is on disk when this returns; others may add meanwhile."""
        with self._lock:
            if not self._unsynced:
                return
            self._unsynced, file = False, os.dup(self._file)
        try:
            os.fsync(file)
        except OSError:
            self.failures += 1
        finally:
            os.close(file)


def verify(path: Path) -> Verified:
    """Reads a log from its oldest file to its last line. Raises InputError that names the line where it is broken."""
    files = [*_older(path), *([path] if path.is_file() else [])]
    if not files:
        raise InputError(path, "there is no such audit log", "Give the path that stands in the configuration")
    lines = first = mended = place = 0
    expected: int | None = None
    head, cut = "", b""
    for file in files:
        for place, raw in _lines(file):
            entry = _parsed(raw)
            if entry is None:
                cut += raw
                continue
            if expected is None:
                first, head = entry["number"], entry["previous"]
                if first == 1 and head != FIRST:
                    raise _broken(file, place, "is the first, and bound to another")
            elif entry["number"] != expected:
                raise _broken(file, place, f"has number {entry['number']} in place of {expected}")
            if entry["previous"] != head:
                raise _broken(file, place, "is not bound to the line before it")
            if cut and (entry.get("kind") != "mended" or entry.get("sha256") != _digest(cut.rstrip(b"\n"))):
                raise _broken(file, place, "follows a damaged line for which it does not account")
            mended += bool(cut)
            cut, head, expected = b"", entry["hash"], entry["number"] + 1
            lines += 1
    if cut:
        raise _broken(files[-1], place, "was cut short; a server that opens the log closes it")
    return Verified(lines=lines, first=first, mended=mended, head=head)


def _older(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-{'[0-9]' * 12}{path.suffix}"))


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as stream:
        yield from enumerate(stream, start=1)


def _end_of(file: Path) -> tuple[int, str, int]:
    """(number, hash) of the last whole line, and how many bytes come after it."""
    size = file.stat().st_size
    tail = _read(file, max(0, size - _TAIL_BYTES), _TAIL_BYTES)
    after = 0
    for raw in reversed(tail.splitlines(keepends=True)):
        entry = _parsed(raw)
        if entry is not None:
            return entry["number"], entry["hash"], after
        after += len(raw)
    if after < size:
        raise InputError(file, "ends in what is no audit log", "Move the file away, and keep it")
    return 0, FIRST, after


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """A line that is whole and bears its own hash; None for any other."""
    if not raw.endswith(b"\n"):
        return None
    try:
        entry = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("number"), int):
        return None
    body = {key: value for key, value in entry.items() if key != "hash"}
    return entry if entry.get("hash") == _hash(body) and isinstance(entry.get("previous"), str) else None


def _hash(body: dict[str, Any]) -> str:
    return _digest(_text(body).encode())


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(file: Path, start: int, count: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(count)


def _failed(path: Path, error: OSError) -> AuditError:
    return AuditError(path, f"the audit log can't be written ({(error.strerror or 'disk').lower()})", "Free some space")


def _broken(file: Path, line: int, rule: str) -> InputError:
    return InputError(f"{file}, line {line}", rule, "Somebody changed this log, or its disk is damaged")
