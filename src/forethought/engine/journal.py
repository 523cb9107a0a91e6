"""Every answer that was paid for, on disk the moment it is there."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from forethought.errors import InputError
from forethought.records import Record, cut_half_line


class Answer(Record):
    """One answer of a model."""

    key: str
    """Hash of everything that changes the answer; see `calls.content_key`."""
    call: str
    """The caller's own name for the call, for people who read the file."""
    attempt: int
    """1 for the first; further ones follow a rejected answer."""
    text: str
    stop: str
    """Why the model stopped, in inspect's words: `stop`, `max_tokens`, `content_filter`, ..."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Part of `input_tokens`."""
    seconds: float = 0.0


class Journal:
    """Answers by key, in a file that only grows. One writer at a time.

    A last line that a kill cut short is removed when the file is opened: its call is asked again.
    """

    def __init__(self, path: Path) -> None:
        """Raises InputError for a line in the middle that is not an answer."""
        self._path = path
        self._known: dict[str, Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            cut_half_line(path)
            self._read()
        self._file = path.open("a", encoding="utf-8")
        self._pending: list[str] = []
        self._writing: asyncio.Future[None] | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> Answer | None:
        """The answer kept under a key."""
        return self._known.get(key)

    async def append(self, answer: Answer) -> None:
        """Keeps an answer; it is on disk when this returns.

        Answers that come in while the disk is busy are written together, and the event loop goes on meanwhile:
        a sync may take ten milliseconds, which at a hundred answers a second is all the time there is.
        """
        self._known[answer.key] = answer
        self._pending.append(answer.model_dump_json() + "\n")
        while self._writing is not None and not self._writing.done():
            await asyncio.shield(self._writing)
        if self._pending:  # else another answer's write took this one along
            lines, self._pending = self._pending, []
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, lines))
            await asyncio.shield(self._writing)

    def close(self) -> None:
        """Writes what is still waiting, and closes the file. Only after the event loop has ended."""
        self._write(self._pending)
        self._file.close()

    def _write(self, lines: list[str]) -> None:
        with self._lock:
            self._file.write("".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    answer = Answer.model_validate(json.loads(line))
                except (ValidationError, json.JSONDecodeError):
                    raise InputError(
                        f"{self._path}, line {number}", "is not an answer", "Delete that line: its call is asked again"
                    ) from None
                self._known[answer.key] = answer
