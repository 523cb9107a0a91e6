"""Every reply of a run, on disk the moment it is there, each once."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from forethought.engine.conversation import Failed, Response
from forethought.errors import InputError
from forethought.evals.suite.lines import Lines
from forethought.evals.suite.lock import locked

REPLIES_FILE = "replies.jsonl"
FAILURES_FILE = "failures.jsonl"
LOCK_FILE = "run.lock"
NOT_ASKED = "not asked: the run ended before its turn"


class Replies:
    """What came back, by `Attempt.asked`; responses are read from disk as they are wanted."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError for a damaged line."""
        self._responses = Lines(folder / REPLIES_FILE)
        self._failures = Lines(folder / FAILURES_FILE)

    def get(self, asked: str) -> Response | Failed:
        """The response, or why there is none."""
        row = self._responses.get(asked)
        if row is None:
            return Failed(cause=self._failures.get(asked) or NOT_ASKED)
        return _response(row, self._responses.path, asked)

    def __contains__(self, asked: str) -> bool:
        return asked in self._responses

    def close(self) -> None:
        """Closes the files."""
        self._responses.close()
        self._failures.close()

    def __enter__(self) -> Replies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Journal:
    """Writes the replies of a run. Responses are kept for good; failures are kept apart, and asked again."""

    def __init__(self, folder: Path) -> None:
        """Raises StageError where another run writes to the folder, InputError for a damaged line."""
        self._lock = threading.Lock()
        with ExitStack() as stack:
            stack.enter_context(locked(folder / LOCK_FILE))
            self._responses = stack.enter_context(Lines(folder / REPLIES_FILE, write=True))
            _keep_open_failures(folder / FAILURES_FILE, self._responses)
            self._failures = stack.enter_context(Lines(folder / FAILURES_FILE, write=True))
            self._stack = stack.pop_all()

    def __contains__(self, asked: str) -> bool:
        """Whether there is a response."""
        return asked in self._responses

    def __len__(self) -> int:
        return len(self._responses)

    def keep(self, asked: str, reply: Response | Failed) -> bool:
        """Keeps a reply; True where it is new. A second response to the same conversation is passed over."""
        with self._lock:
            if asked in self._responses:
                return False
            if isinstance(reply, Failed):
                self._failures.add(asked, json.dumps(reply.cause))
                return True
            self._responses.add(asked, reply.model_dump_json(exclude_defaults=True))
            return True

    def close(self) -> None:
        """All on disk, and the folder free for the next run."""
        self._stack.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _response(row: object, path: Path, asked: str) -> Response:
    try:
        return Response.model_validate(row)
    except ValidationError:
        raise InputError(
            f"{path}, the line of {asked}", "is not a response", "Delete that line: it is asked again"
        ) from None


def _keep_open_failures(path: Path, responses: Lines) -> None:
    """Failures of earlier runs that have no response yet, each once, so that the file doesn't grow run by run."""
    if not path.is_file():
        return
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with Lines(path) as old, Lines(part, write=True) as new:
        for asked in old:
            if asked not in responses:
                new.add(asked, json.dumps(old.get(asked)))
    os.replace(part, path)
