"""What came of a sweep: its cells, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forethought.attacks.searches.outcome import Outcome
from forethought.attempts.records import Judged
from forethought.metrics import Figure
from forethought.research.cell import Trained
from forethought.research.material import Ground


@dataclass(frozen=True)
class Made:
    """What made a cell: for whoever reads its figures beside those of other runs."""

    key: str
    """Of everything in the sweep that its answers depend on."""
    seconds: float
    """Of all its stages when they ran."""
    commit: str | None
    """Of the code that its answers were asked by."""
    finished: str
    machine: dict[str, Any]
    of_text: Sequence[Figure] | None = None
    """Of a cell taken from another run's log: its figures that rest on text, which no log holds."""
    understood: Sequence[Figure] | None = None
    """Of the base model taken from a log: how well it understands each style; None where the log doesn't say."""


@dataclass(frozen=True)
class CellResult:
    """What came of one defence on one base, seed and budget."""

    defence: str
    title: str
    base: str
    seed: int
    budget: int
    """0 for a defence that is not trained."""
    judged: Sequence[Judged] = ()
    questions: Sequence[Judged] = ()
    """Further short questions, asked apart from what is judged."""
    outcomes: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)
    """By adaptive attack."""
    latency: Sequence[float] = ()
    """Times as long as the undefended model that it took, by request."""
    trained: Trained | None = None
    note: str = ""
    missing: str = ""
    """Why there is nothing."""
    made: Made | None = None

    @property
    def logged(self) -> Sequence[Figure] | None:
        """Of a cell taken from another run's log: its figures that rest on text, which is not there; else None."""
        return self.made.of_text if self.made is not None else None


@dataclass
class SweepRun:
    """All cells of a sweep, and what they cost."""

    results: list[CellResult] = field(default_factory=list)
    grounds: list[Ground] = field(default_factory=list)
    seconds: float = 0.0
    """Time of all stages when they ran, those kept from before included."""
    peak_gib: float = 0.0

    def add(self, result: CellResult) -> None:
        """One cell more, and what it cost."""
        self.results.append(result)
        self.seconds += result.made.seconds if result.made is not None else 0.0


def by_place(run: SweepRun) -> Iterator[tuple[Ground, list[CellResult]]]:
    """The results of each base and seed together."""
    for ground in run.grounds:
        yield ground, [one for one in run.results if (one.base, one.seed) == (ground.base, ground.seed)]
