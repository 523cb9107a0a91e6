"""Where work runs: in this process, or on a Ray cluster. The one place that knows Ray, which is an extra.

    with connect("ray") as workers:
        results = workers.map(function, items, what_all_of_them_need)

What is mapped is a plain function of a module, over pieces of work that are told by little (a file and a range of it)
and that leave their results on disk: one machine runs the same function over the same pieces, one after the other.
"""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from forethought.errors import ConfigError, ForethoughtError, StageError, reason_of

Item = TypeVar("Item")
Result = TypeVar("Result")
ON = (
    "`ray` (the cluster that this machine belongs to, else one of its own), `ray://HOST:PORT`, or HOST:PORT of its head"
)
_INSTALL = 'pip install "forethought[ray]"'
CHUNK = 5_000
"""Rows that travel to a worker at once."""
LIVES = 4
"""So often a piece of work is begun again after its worker or node was lost, before the whole is given up."""
_ANSWERS_S = 10.0
"""Within so many seconds a cluster answers at all."""
_CALLS = 4
"""So often is a client server asked: of the processes that a head forks, one for each client, some never begin."""
_AHEAD = 2
"""Pieces given out for each that can run at once: none waits for the driver, and no more than these are held."""


class Workers(ABC):
    """Those who do pieces of work."""

    def map(
        self,
        function: Callable[..., Result],
        items: Sequence[Item],
        *shared: Any,
        on_result: Callable[[int, Result], None] | None = None,
    ) -> list[Result]:
        """`function(item, *shared)` of every item, in their order; `on_result(place, result)` as each is there.

        What a function does must be the same when it is done twice: work of a lost worker is done again. Raises what
        the function raises, and StageError for work that is lost again and again.
        """
        results: dict[int, Result] = {}
        with closing(self._done(function, items, shared)) as done:
            for place, result in done:
                results[place] = result
                if on_result is not None:
                    on_result(place, result)
        return [results[place] for place in range(len(items))]

    @abstractmethod
    def _done(
        self, function: Callable[..., Any], items: Sequence[Any], shared: tuple[Any, ...]
    ) -> Generator[tuple[int, Any]]:
        """(place, result) of every item, as it is done."""


class Here(Workers):
    """This process, one piece after the other."""

    def _done(
        self, function: Callable[..., Any], items: Sequence[Any], shared: tuple[Any, ...]
    ) -> Generator[tuple[int, Any]]:
        for place, item in enumerate(items):
            yield place, function(item, *shared)


class OnRay(Workers):
    """A Ray cluster. Pieces are tasks, with what they share put into its object store once.

    Tasks and not a Ray dataset: rows go from disk to disk, and what travels is where they stand and what was counted.
    """

    def _done(
        self, function: Callable[..., Any], items: Sequence[Any], shared: tuple[Any, ...]
    ) -> Generator[tuple[int, Any]]:
        """No more pieces are given out than the cluster soon takes, a processor each; it may grow meanwhile."""
        import ray

        held = [ray.put(shared)]  # in a list: fetched once by each process, not once a task
        task = ray.remote(_do).options(num_cpus=1, max_retries=LIVES)
        waiting = iter(enumerate(items))
        running: dict[Any, int] = {}
        try:
            while True:
                places = max(1, int(ray.cluster_resources().get("CPU", 0)))  # one that is to grow is asked to
                for place, item in itertools.islice(waiting, max(_AHEAD * places - len(running), 0)):
                    running[task.remote(function, item, held)] = place
                if not running:
                    return
                for done in ray.wait(list(running), num_returns=1)[0]:
                    place = running.pop(done)
                    yield place, _fetched(done, place)
        finally:
            for left in running:
                ray.cancel(left, force=False)


def _fetched(ref: Any, place: int) -> Any:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ForethoughtError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:  # the worker, its node or its memory is gone, after all its lives
        rule = f"was lost {LIVES + 1} times ({reason_of(error)})"
        fix = "Look at the nodes' memory and logs (`ray status`), then run the command again: what is done is kept"
        raise StageError(f"piece {place} of the work", rule, fix) from None


_held: tuple[str, tuple[Any, ...]] = ("", ())
"""In a worker: what the pieces of one map share, by the key that it was put under."""


def _do(function: Callable[..., Any], item: Any, held: list[Any]) -> Any:
    global _held
    import ray

    if _held[0] != held[0].hex():
        _held = (held[0].hex(), ray.get(held[0]))
    return function(item, *_held[1])


def in_chunks(
    workers: Workers, function: Callable[..., Result], rows: Sequence[Item], *shared: Any, size: int = CHUNK
) -> list[Result]:
    """`function(chunk, *shared)` of rows that this process holds, in chunks that travel; all at once where nothing
    does."""
    step = max(len(rows), 1) if isinstance(workers, Here) else size
    return workers.map(function, [rows[start : start + step] for start in range(0, len(rows), step)], *shared)


@contextmanager
def connect(on: str | None) -> Iterator[Workers]:
    """The workers that `--on` names; None is this process. A cluster that was started here ends with the block.

    Raises ConfigError where Ray is not installed or no cluster answers.
    """
    if on is None:
        yield Here()
        return
    host, _, port = on.removeprefix("ray://").rpartition(":")
    if on != "ray" and not (host and port.isdigit()):
        raise ConfigError(f"--on {on}", "is no place to run", f"Say {ON}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError:
        raise ConfigError(f"--on {on}", "needs Ray, which is not installed", f"Run: {_INSTALL}") from None
    if ray.is_initialized():  # the caller's own
        yield OnRay()
        return
    _start(ray, on)
    try:
        yield OnRay()
    finally:
        ray.shutdown()


def _start(ray: Any, on: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    address = _cluster_here() if on == "ray" else on
    if address is None:
        try:
            ray.init(address="local", num_cpus=_processors(), include_dashboard=False, **quiet)
        except Exception as error:  # Ray's own is no narrower: after half a minute on a machine that is busy
            fix = "Run it again when the machine has less to do, or start a cluster with `ray start --head`"
            raise ConfigError(f"--on {on}", f"no cluster came up here ({reason_of(error)})", fix) from None
        return
    # A cluster's nodes have an environment of their own; keys of providers are set there, never sent.
    ours = {name: value for name, value in os.environ.items() if name.startswith("FORETHOUGHT_")}
    try:
        if not _answers(address):  # Ray itself takes half a minute and more to find that out
            raise ConnectionError("the address is closed")
        # Where nothing is set, no environment is made: that takes a node seconds.
        calls = stop_after_attempt(_CALLS if address.startswith("ray://") else 1)
        again = Retrying(stop=calls, retry=retry_if_exception_type(ConnectionError), reraise=True)
        again(ray.init, address=address, runtime_env={"env_vars": ours} if ours else None, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        fault = f"no cluster answers there ({reason_of(error)})"
        # Not guessed: a driver that wants a token of a cluster that has none loses what its workers fetch from it.
        fix = "Start one with `ray start --head`, or say --on ray; one that asks for a token needs RAY_AUTH_MODE=token"
        raise ConfigError(f"--on {on}", fault, fix) from None


def _processors() -> int | None:
    """How many this process may use, where these are not all that there are: Ray counts those of the machine."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return None if allowed == os.cpu_count() else allowed


def _cluster_here() -> str | None:
    """The address of the cluster that this machine belongs to, as Ray notes it; None where there is none, or none any
    more: a killed one leaves its note.
    """
    note = Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    address = os.environ.get("RAY_ADDRESS") or (note.read_text(encoding="utf-8").strip() if note.is_file() else "")
    return address if address and _answers(address) else None


def _answers(address: str) -> bool:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()
    except (OSError, ValueError):
        return False
    return True
