"""Workers of a Ray cluster that each hold what takes long to open, such as a model, and are given block after block.

Blocks are taken as workers come free, so that no more of them is in memory than is being worked on. What a worker says
comes back as it is said. A worker that is lost with its process, node or server gives its blocks to others; a block
that is lost every time, or fails every time, is `Lost` with its cause.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from forethought.cluster import connect
from forethought.errors import ForethoughtError, StageError, reason_of

Say = Callable[[Any], None]
Work = Callable[[Any, Any, Say], None]
"""(what the worker holds, the block, tells something of it as soon as it is there)."""
_TRIES = 3
"""So often a block is given to a worker, and a worker started that never gets to work."""
_WAIT_S = 2.0
"""How long a worker waits for something to say."""
_TOGETHER_S = 0.05
"""How long it waits for more, once there is something: one message holds many."""
_LOOK_S = 5.0
"""How often the cluster is asked how large it is: it may grow and shrink."""


@dataclass(frozen=True)
class Done:
    """A block is done: nothing more is said of it."""


@dataclass(frozen=True)
class Lost:
    """A block that could not be done."""

    cause: str


class _Worker:
    """In a process of the cluster: opens what it holds, and works on blocks one after another."""

    def __init__(self, opened: Callable[[], Any], folder: str) -> None:
        """`folder` is what relative paths start from, where it is there."""
        if os.path.isdir(folder):
            os.chdir(folder)
        self._given: queue.SimpleQueue[tuple[int, Work, Any]] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[tuple[int | None, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(opened,), daemon=True).start()

    def step(self, given: list[tuple[int, Work, Any]]) -> list[tuple[int | None, Any]]:
        """Takes blocks, and gives what was said since: (number of the block, what); None for what it opened."""
        for one in given:
            self._given.put(one)
        said = []
        try:
            said.append(self._said.get(timeout=_WAIT_S))
            time.sleep(_TOGETHER_S)
            while True:
                said.append(self._said.get_nowait())
        except queue.Empty:
            return said

    def _run(self, opened: Callable[[], Any]) -> None:
        try:
            held = opened()
        except Exception as error:
            self._said.put((None, _told(error)))
            return
        self._said.put((None, Done()))
        while True:
            number, work, block = self._given.get()

            def say(what: Any, number: int = number) -> None:
                self._said.put((number, what))

            try:
                work(held, block, say)
                say(Done())
            except Exception as error:
                say(_told(error))


def _told(error: Exception) -> ForethoughtError:
    if isinstance(error, ForethoughtError):
        return error
    return StageError("a worker of the cluster", f"{type(error).__name__}: {reason_of(error)}", "See Ray's logs")


@dataclass(eq=False)
class _Task:
    number: int
    block: Any
    left: Any
    """What is still to do of it."""
    tries: int = 0


@dataclass(eq=False)
class _Hired:
    actor: Any
    step: Any
    """Its answer that is waited for; None while it has nothing to do."""
    ready: bool = False
    """Whether it has opened what it holds."""
    doing: dict[int, _Task] = field(default_factory=dict)
    fresh: list[tuple[int, Work, Any]] = field(default_factory=list)
    """What goes to it with the next step."""

    def go_on(self) -> None:
        """The next step, where none is on its way and there is anything to do."""
        if self.step is None and (self.doing or not self.ready):
            self.step, self.fresh = self.actor.step.remote(self.fresh), []


class Holders:
    """Workers that each hold something, started as there is work and room for them; `close` lets go of them."""

    def __init__(self, on: str, opened: Callable[[], Any], gpus: float | None = None, most: int | None = None) -> None:
        """`opened` makes what each worker holds, in its process. It takes a processor and `gpus` of the cluster (None:
        one GPU where there are any); at most `most` are started, else as many as fit.

        Raises ConfigError as `connect`.
        """
        self._on, self._opened, self._most = on, opened, most
        self._ray: Any = None
        self._connected = ExitStack()
        there = self._connect().cluster_resources()
        self._gpus = gpus if gpus is not None else float(there.get("GPU", 0) >= 1)
        self._hired: list[_Hired] = []
        self._numbers = itertools.count()
        self._worked = False
        """Whether anything was ever done."""
        self._broken: list[ForethoughtError] = []
        """Why workers never got to work."""
        self._fit, self._looked_at = 1, -_LOOK_S

    def each(
        self, work: Work, blocks: Iterable[Any], left: Callable[[Any], Any] = lambda block: block, ahead: int = 2
    ) -> Iterator[tuple[Any, Any]]:
        """(block, what was said of it), as it comes and in any order; `Done` or `Lost` is the last of each.

        `left` says what is still to do of a block that goes to another worker: what was said of it stays said. A worker
        is given `ahead` blocks at once: the next lies there when one is done. Raises what workers raise where none of
        them ever did anything.
        """
        self._connect()
        source = (_Task(next(self._numbers), block, block) for block in blocks)
        waiting: deque[_Task] = deque()
        try:
            while True:
                n_doing = sum(len(one.doing) for one in self._hired)
                free = max(ahead * self.room - n_doing - len(waiting), 0)
                waiting.extend(itertools.islice(source, free))
                if not waiting and not n_doing:
                    return
                self._hire(len(waiting) + n_doing)
                self._give(work, waiting, ahead)
                for task, said in self._heard():
                    if isinstance(said, ForethoughtError):
                        task.tries += 1
                        if task.tries < _TRIES:
                            task.left = left(task.left)
                            waiting.appendleft(task)
                        elif self._worked:
                            yield task.block, Lost(said.rule)
                        else:
                            raise said
                    else:
                        yield task.block, said
        finally:
            for one in [one for one in self._hired if one.doing]:
                self._dismiss(one)

    def one(self, work: Work, block: Any = None) -> Any:
        """What a worker says of one block. Raises StageError where it was lost."""
        said = [what for _, what in self.each(work, [block])]
        if isinstance(said[-1], Lost):
            raise StageError("a worker of the cluster", said[-1].cause, "Run it again")
        return said[0]

    def close(self) -> None:
        """Lets go of all workers, and of a cluster that was started for them; the next block starts some anew."""
        for one in list(self._hired):
            self._dismiss(one)
        self._connected.close()
        self._ray = None

    def _connect(self) -> Any:
        if self._ray is None:
            self._connected.enter_context(connect(self._on))
            import ray

            self._ray = ray
        return self._ray

    @property
    def room(self) -> int:
        """How many workers fit into the cluster as it is."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            there, self._looked_at = self._ray.cluster_resources(), time.monotonic()
            fit = there.get("GPU", 0) // self._gpus if self._gpus else there.get("CPU", 0)
            self._fit = max(int(fit), 1)
        return min(self._fit, self._most or self._fit)

    def _hire(self, blocks: int) -> None:
        """Starts workers for so many blocks. Raises why they don't get to work where none does."""
        if not self._hired and len(self._broken) >= _TRIES:
            raise self._broken.pop()
        while len(self._hired) < min(self.room, blocks) and len(self._broken) < _TRIES:
            actor = self._ray.remote(_Worker).options(num_cpus=1, num_gpus=self._gpus)
            self._hired.append(_Hired(actor.remote(self._opened, os.getcwd()), None))

    def _give(self, work: Work, waiting: deque[_Task], ahead: int) -> None:
        """Blocks to those who have fewest, and everyone goes on."""
        while waiting and (free := [one for one in self._hired if one.ready and len(one.doing) < ahead]):
            task, one = waiting.popleft(), min(free, key=lambda one: len(one.doing))
            one.doing[task.number] = task
            one.fresh.append((task.number, work, task.left))
        for one in self._hired:
            one.go_on()

    def _heard(self) -> Iterator[tuple[_Task, Any]]:
        """What workers say next. The tasks of one that is lost have failed."""
        steps = {one.step: one for one in self._hired if one.step is not None}
        heard, _ = self._ray.wait(list(steps), num_returns=1, timeout=_LOOK_S)
        for step in heard:
            one = steps[step]
            one.step = None
            try:
                messages = self._ray.get(step)
            except self._ray.exceptions.RayError as error:
                yield from self._lose(one, f"a worker was lost: {reason_of(error)}")
                continue
            for number, said in messages:
                if number is None:
                    one.ready = isinstance(said, Done)
                    if isinstance(said, ForethoughtError):
                        self._broken.append(said)
                        self._dismiss(one)
                        if not self._worked:
                            raise said
                elif number in one.doing:
                    task = one.doing[number]
                    if isinstance(said, Done | ForethoughtError):
                        del one.doing[number]
                    if isinstance(said, Done):
                        self._worked = True
                        self._broken.clear()
                    yield task, said

    def _lose(self, one: _Hired, cause: str) -> Iterator[tuple[_Task, ForethoughtError]]:
        failure = StageError("the cluster", cause, "See Ray's logs and its nodes' memory")
        if not one.ready:
            self._broken.append(failure)
        self._dismiss(one)
        for task in one.doing.values():
            yield task, failure

    def _dismiss(self, one: _Hired) -> None:
        self._hired.remove(one)
        self._ray.kill(one.actor)
