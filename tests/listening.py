"""Somebody who hears what a training says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from forethought.progress import Bar, Progress


class Listening(Progress):
    """Keeps what is said, and gives each step of every bar to `on_step`."""

    def __init__(self, on_step: Callable[[int, int, Mapping[str, float]], object] | None = None) -> None:
        super().__init__()
        self.said: list[str] = []
        self.on_step = on_step

    def say(self, line: Any) -> None:
        self.said.append(str(line))

    @contextmanager
    def bar(self, name: str) -> Iterator[Bar]:
        yield _Steps(self)


class _Steps(Bar):
    def __init__(self, listening: Listening) -> None:
        self._listening = listening

    def step(self, step: int, steps: int, losses: Mapping[str, float]) -> None:
        if self._listening.on_step is not None:
            self._listening.on_step(step, steps, losses)
