"""Processes of their own that begin at once, to be killed: forked from a server that has imported everything.

A new Python takes ten seconds of a core for torch, transformers, trl and inspect-ai, and a test run starts dozens. The
server is a new process itself: it has no threads, no models, and another hash seed than the tests.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.imported"])


class Child:
    """A process, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        do: Callable[..., Any],
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        out: Path | None = None,
        err: Path | None = None,
    ) -> None:
        """Calls `do` with the arguments as its command line. `out` and `err` are files; None drops what is printed."""
        given = {**os.environ, **(environment or {})}
        self._process = _CONTEXT.Process(target=_run, args=(do, arguments, given, out, err))
        self._process.start()
        atexit.register(self._process.kill)  # before they are waited for: none outlives a test that failed
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, once it has."""
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, f"the child did not end within {timeout} seconds"
        return code

    def kill(self) -> None:
        """Ends it at once, and waits until it is gone."""
        self._process.kill()
        self._process.join()

    def kill_once(self, ready: Callable[[], bool], within: float = 240.0) -> None:
        """Kills it as soon as something has happened, which has to be before it ends and within so many seconds."""
        end = time.monotonic() + within
        try:
            while not ready():
                assert self.poll() is None, "the child ended before it could be killed"
                assert time.monotonic() < end, "the child never came so far"
                time.sleep(0.01)
        finally:
            self.kill()
        assert self.wait() == -signal.SIGKILL

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def command(*arguments: object, **options: Any) -> Child:
    """`forethought` with some arguments; what it trains thinks shortly, and is asked few questions."""
    return Child(_command, *map(str, arguments), **options)


def code(text: str, *arguments: object, **options: Any) -> Child:
    """`python -c TEXT` with some arguments."""
    return Child(_Code(text), *map(str, arguments), **options)


class _Code:
    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self) -> None:
        exec(compile(self.text, "<child>", "exec"), {"__name__": "__main__"})


def _command() -> None:
    from forethought.cli import main
    from tests.tiny import briefly

    with briefly():
        main()


def _run(
    do: Callable[..., Any], arguments: tuple[str, ...], environment: dict[str, str], out: Path | None, err: Path | None
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["forethought", *arguments]
    for number, path in ((1, out), (2, err)):
        file = os.open(path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    do()
