"""A cluster that is this process: workers of Ray without Ray, which die when a test says so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch


class Gone(Exception):
    """As Ray's errors of what is lost."""


class Cluster(ModuleType):
    """Has what `Holders` uses of the module `ray`."""

    exceptions = SimpleNamespace(RayError=Gone)

    def __init__(self, cpus: int, dies: Callable[[int, int], bool]) -> None:
        """`dies(worker, step)`: whether a worker, from 0 as they are started, is lost at this step of it, from 0."""
        super().__init__("ray")
        self.cpus, self.dies = cpus, dies
        self.started = self.waits = 0
        self.killed: list[int] = []
        self.given: list[tuple[int, Any]] = []
        """(worker, block), as they were given out."""

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus}

    def remote(self, kind: Any) -> _Kind:
        return _Kind(self, kind)

    def wait(self, steps: list[_Step], num_returns: int, timeout: float) -> tuple[list[_Step], list[_Step]]:
        self.waits += 1
        return [steps[self.waits % len(steps)]], []  # in turn

    def get(self, step: _Step) -> Any:
        return step.answer()

    def kill(self, actor: _Actor) -> None:
        self.killed.append(actor.number)


class _Kind:
    def __init__(self, cluster: Cluster, kind: Any) -> None:
        self._cluster, self._kind = cluster, kind

    def options(self, **_: Any) -> _Kind:
        return self

    def remote(self, *arguments: Any) -> _Actor:
        self._cluster.started += 1
        return _Actor(self._cluster, self._kind(*arguments), self._cluster.started - 1)


class _Actor:
    def __init__(self, cluster: Cluster, held: Any, number: int) -> None:
        self.cluster, self.held, self.number = cluster, held, number
        self.steps = 0
        self.step = self

    def remote(self, given: list[tuple[int, Any, Any]]) -> _Step:
        self.cluster.given += [(self.number, block) for _, _, block in given]
        return _Step(self, given)


class _Step:
    def __init__(self, actor: _Actor, given: Any) -> None:
        self._actor, self._given = actor, given

    def answer(self) -> Any:
        one = self._actor
        one.steps += 1
        if one.cluster.dies(one.number, one.steps - 1):
            raise Gone("The actor died")
        return one.held.step(self._given)


@contextmanager
def inline(cpus: int = 2, dies: Callable[[int, int], bool] = lambda worker, step: False) -> Iterator[Cluster]:
    """While it lasts, `ray` is this process."""
    cluster = Cluster(cpus, dies)
    with patch.dict(sys.modules, {"ray": cluster}):
        yield cluster
