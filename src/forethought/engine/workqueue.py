"""Work shared among servers: who takes what next, who is waited for, and when to give up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from inspect_ai.model import Model

from forethought.engine.asking import MOST, START, wait_s
from forethought.engine.conversation import Conversation
from forethought.engine.failures import Failure
from forethought.engine.limiter import Limiter

_RUN = 32
"""Most neighbouring jobs that a server takes at once."""


@dataclass
class Job:
    """One conversation to be asked."""

    places: list[int]
    """Where it stands in what was asked."""
    conversation: Conversation
    tries: int = 0
    cause: str = ""
    """Of the last failure."""
    started: float = 0.0
    """When it was last begun (monotonic seconds)."""

    @property
    def text(self) -> str:
        """What is sent, for sorting."""
        turns = [f"{turn.role}\x1f{turn.content}" for turn in self.conversation.messages]
        return "\x1e".join([*turns, self.conversation.prefill])


class Server:
    """One server and how it does. Kept between runs."""

    def __init__(self, model: Model, number: int, concurrency: int | None) -> None:
        """`concurrency` None starts at `START` calls and grows to at most `MOST`."""
        self.model, self.number = model, number
        self.workers = concurrency or MOST
        self.limiter = Limiter(min(START, self.workers) if concurrency is None else concurrency, self.workers)
        self.own: deque[Job] = deque()
        """Neighbouring jobs that it has taken."""
        self.failures = 0
        """Failed tries on end; calls that were in flight together count as one."""
        self.failed_at, self.retry_at = 0.0, 0.0
        """When the last of them ended, and when the next may begin (monotonic seconds)."""
        self.trying = False
        """Whether one call finds out if it is back; the others wait."""
        self.denied = ""
        """Why it is not asked at all: a wrong key, address or name."""


class WorkQueue:
    """The jobs of one run. For one event loop."""

    def __init__(self, jobs: Sequence[Job], servers: Sequence[Server], max_retries: int, backoff_s: float) -> None:
        """Servers get a new chance, whatever became of them in an earlier run."""
        self.jobs = list(jobs)
        self._waiting = deque(jobs)
        self._running = 0
        self._servers, self._max_retries, self._backoff_s = servers, max_retries, backoff_s
        self._changed = asyncio.Event()
        self._rng = random.Random(0)
        for server in servers:
            server.own.clear()
            server.failures, server.denied, server.trying = 0, "", False

    @property
    def denied(self) -> str:
        """Why nothing can work: the first server's reason, where all have denied access."""
        return self._servers[0].denied if all(server.denied for server in self._servers) else ""

    async def take(self, server: Server) -> Job | None:
        """The next job for a server; None when there is nothing left to do, or nobody to do it."""
        while not self._is_over(server):
            early_s = server.retry_at - time.monotonic() if server.failures else 0.0
            if server.trying or early_s > 0:
                await self._wait(early_s)
            elif (job := self._next(server)) is None:
                await self._wait(0.0)
            else:
                server.trying = server.failures > 0
                job.started = time.monotonic()
                self._running += 1
                return job
        return None

    def done(self, server: Server, job: Job) -> None:
        """A job was answered: the server is well, unless it has failed since the job was begun."""
        self._running -= 1
        if job.started >= server.failed_at:
            server.failures, server.trying = 0, False
        self._tell()

    async def failed(self, server: Server, job: Job, failure: Failure) -> bool:
        """A job was not answered: it is given back, to be asked again by whoever is there. True: it is lost."""
        job.tries, job.cause = job.tries + 1, failure.cause
        lost = not failure.hopeless and (not failure.retry or job.tries > self._max_retries)
        pause = wait_s(max(server.failures, job.tries - 1), self._backoff_s, failure, self._rng)
        if failure.hopeless:
            server.denied = failure.cause
        elif failure.rate_limited:
            if not lost:  # the server is well, the call came too early: the job is kept meanwhile
                await asyncio.sleep(pause)
        elif failure.retry and job.started >= server.failed_at:
            server.failures, server.trying = server.failures + 1, False
            server.failed_at = time.monotonic()
            server.retry_at = server.failed_at + pause
        self._running -= 1
        if job.started >= server.failed_at:  # a trial that ends otherwise than expected is over, too: others may try
            server.trying = False
        if not lost:
            self._waiting.appendleft(job)
        if server.failures or server.denied:  # what it has not begun is for the others
            self._waiting.extendleft(reversed(server.own))
            server.own.clear()
        self._tell()
        return lost

    def left_over(self) -> list[Job]:
        """Jobs that nobody was there for."""
        left = [*self._waiting, *(job for server in self._servers for job in server.own)]
        known = next((job.cause for job in self.jobs if job.cause), "no server answers")
        for job in left:
            job.cause = job.cause or next((one.denied for one in self._servers if one.denied), known)
        return left

    def _is_over(self, server: Server) -> bool:
        gone = all(one.denied or one.failures > self._max_retries for one in self._servers)
        left = self._running or self._waiting or any(one.own for one in self._servers)
        return bool(server.denied) or gone or not left

    def _next(self, server: Server) -> Job | None:
        if not server.own and self._waiting:
            share = len(self._waiting) // (2 * len(self._servers))
            for _ in range(min(max(share, 1), _RUN)):
                server.own.append(self._waiting.popleft())
        if server.own:
            return server.own.popleft()
        # Nothing new: take over from the one that has most left, from its end.
        other = max(self._servers, key=lambda one: len(one.own))
        return other.own.pop() if other.own else None

    async def _wait(self, seconds: float) -> None:
        """Until something changes, or for `seconds` where they are more than none."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds if seconds > 0 else None)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
