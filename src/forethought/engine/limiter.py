"""How many calls run at once: additive increase, multiplicative decrease.

inspect's own adaptive concurrency reacts to rate limits alone, cuts once in 15 seconds and
shares one limit per model and process, whatever a later run asks for; this one also reacts to
answers that get slow, and belongs to one run.
"""

from __future__ import annotations

import asyncio
import statistics

SLOW = 3.0
"""A round whose median answer takes this many times the best round's is a sign of overload."""
LEAST_ROUND = 4
"""Fewest answers by which a round is judged."""


class Limiter:
    """Lets calls in, and moves its limit by how they end. For one event loop."""

    def __init__(self, start: int, most: int, least: int = 1) -> None:
        """Begins at `start` calls, never above `most` nor below `least`."""
        self.limit = start
        self.running = 0
        self._most, self._least = most, least
        self._epoch = 0
        """Number of cuts so far: a call that began before the last one says nothing about the limit now."""
        self._seconds: list[float] = []
        self._peak = 0
        self._best: float | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def enter(self) -> int:
        """Waits for a place; returns the epoch to hand back to `answered` or `refused`."""
        while self.running >= self.limit:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place in self._waiting:
                    self._waiting.remove(place)
                else:
                    self._wake()  # it was let in and won't come: the next one may
                raise
        self.running += 1
        self._peak = max(self._peak, self.running)
        return self._epoch

    def leave(self) -> None:
        """Gives the place back, whatever became of the call."""
        self.running -= 1
        self._wake()

    def answered(self, epoch: int, seconds: float) -> None:
        """A call got its answer in `seconds`. After a full round the limit may rise, or fall if it got slow."""
        if epoch != self._epoch:
            return
        self._seconds.append(seconds)
        if len(self._seconds) < max(self.limit, LEAST_ROUND):
            return
        median = statistics.median(self._seconds)
        was_full = self._peak >= 0.8 * self.limit  # else the limit did not bind, and says nothing
        self._new_round()
        self._best = median if self._best is None else min(self._best, median)
        if median > SLOW * self._best:
            self._cut(0.8)
        elif was_full:
            grown = self.limit * 2 if self._epoch == 0 else self.limit + max(1, self._most // 10)
            self.limit = min(grown, self._most)
            self._wake()

    def refused(self, epoch: int) -> None:
        """The provider said: too many requests. One cut for all calls that were in flight together."""
        if epoch == self._epoch:
            self._cut(0.5)

    def _cut(self, factor: float) -> None:
        self.limit = max(int(self.limit * factor), self._least)
        self._epoch += 1
        self._new_round()

    def _new_round(self) -> None:
        self._seconds, self._peak = [], self.running

    def _wake(self) -> None:
        free = self.limit - self.running
        for place in self._waiting[: max(free, 0)]:
            if not place.done():
                place.set_result(None)
        del self._waiting[: max(free, 0)]
