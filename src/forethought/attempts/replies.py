"""Every reply of a run, on disk the moment it is there, each once."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from forethought.models.conversation import Failed, Response
from forethought.store import Store, locked, rewrite

REPLIES_FILE = "replies.jsonl"
FAILURES_FILE = "failures.jsonl"
LOCK_FILE = "run.lock"
NOT_ASKED = "not asked: the run ended before its turn"


class Replies:
    """What came back, by `Attempt.asked`; responses are read from disk as they are wanted.

    Responses are kept for good; failures are kept apart, and asked again.
    """

    def __init__(self, folder: Path, write: bool = False) -> None:
        """Raises StageError where it is to write and another run does so, InputError for a damaged line."""
        self._lock = threading.Lock()
        with ExitStack() as stack:
            if write:
                stack.enter_context(locked(folder / LOCK_FILE))
            self._responses = stack.enter_context(Store(folder / REPLIES_FILE, write))
            if write:
                _keep_open_failures(folder / FAILURES_FILE, self._responses)
            self._failures = stack.enter_context(Store(folder / FAILURES_FILE, write))
            self._stack = stack.pop_all()

    def get(self, asked: str) -> Response | Failed:
        """The response, or why there is none."""
        response = self._responses.read(asked, Response)
        return response or Failed(cause=self._failures.get(asked) or NOT_ASKED)

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
                self._failures.add(asked, reply.cause)
            else:
                self._responses.add(asked, reply)
            return True

    def close(self) -> None:
        """All on disk, and the folder free for the next run."""
        self._stack.close()

    def __enter__(self) -> Replies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _keep_open_failures(path: Path, responses: Store) -> None:
    """Failures of earlier runs that have no response yet, each once, so that the file doesn't grow run by run."""
    if path.is_file():
        with Store(path) as old:
            rewrite(path, ((asked, old.get(asked)) for asked in old if asked not in responses))
