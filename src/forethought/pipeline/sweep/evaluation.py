"""What a sweep puts every defence to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from forethought.manifest import key_of
from forethought.pipeline.sweep.benchmark import Benchmark
from forethought.records import Record


class GcgConfig(Record):
    """A small search for suffixes, by gradients, against some of the defences."""

    defences: tuple[str, ...] = ()
    """Ids of the defences that are attacked; others have no such figure."""
    goals: int = Field(default=4, ge=1)
    """Harmful test requests, each with a suffix of its own."""
    steps: int = Field(default=10, ge=1)
    candidates: int = Field(default=32, ge=1)


class SearchConfig(Record):
    """An adaptive attack on some of the defences, with the same number of queries for each."""

    method: str
    """As attack suites write it, such as `best_of_n:n=16`: one that needs no attacker and no evaluator."""
    defences: tuple[str, ...] = ()
    """Ids of the defences that are attacked; others have no such figure."""
    goals: int = Field(default=8, ge=1)
    """Harmful test requests, each searched for by itself."""
    budget: int | None = Field(default=32, ge=1)
    """Most queries for a goal; None is the method's own."""

    @property
    def name(self) -> str:
        """What its figure is called by, as `asr_NAME`."""
        return self.method.partition(":")[0].strip()


class LatencyConfig(Record):
    """How defences are timed beside the undefended model, one request at a time."""

    requests: int = Field(default=10, ge=2)
    """Ordinary ones."""
    max_answer_tokens: int = Field(default=48, ge=1)


class SweepEvaluation(Record):
    """What every defence is put to."""

    attacks: tuple[str, ...] = Field(min_length=1)
    """Styles, on harmful and harmless requests alike."""
    reasoning: tuple[str, ...] = ()
    """Attacks on reasoning, likewise."""
    split: Literal["test", "dev"] = "test"
    """Whose requests: `dev` for choosing among recipes, so that the test stays unseen."""
    benchmark: Benchmark = Benchmark()
    """Requests of somebody else's, in place of those."""
    files: dict[str, Path] = Field(default_factory=dict)
    """Local files by the attack that reads them: `templates` alone."""
    instead: bool = False
    """Whether all this is asked in place of what the sweep's own file asks, so that those answers are kept."""
    n_direct: int = Field(default=50, ge=2)
    n_styled: int = Field(default=20, ge=2)
    n_reasoning: int = Field(default=8, ge=2)
    n_ordinary: int = Field(default=40, ge=2)
    n_lookalike: int = Field(default=30, ge=2)
    n_questions: int = Field(default=0, ge=0)
    """At most so many of the package's further short questions (data/questions.jsonl), besides the sample that is asked
    in any case: of its forty one is 2.5 points."""
    n_prompt_choice: int = Field(default=16, ge=2)
    """Development requests of each label that the best prompt is chosen on."""
    max_answer_tokens: int = Field(default=24, ge=4)
    gcg: GcgConfig = GcgConfig()
    searches: tuple[SearchConfig, ...] = ()
    """Adaptive attacks besides."""
    latency: LatencyConfig | None = None
    """None times nothing."""

    @property
    def asks(self) -> str:
        """Key of what is asked in place of the sweep's own requests or styles; empty where nothing is."""
        if self.instead:
            return key_of([self.benchmark.key, self.attacks, self.reasoning])[:8]
        return self.benchmark.key

    @property
    def all_searches(self) -> tuple[SearchConfig, ...]:
        """GCG, where any defence is put to it, and the other searches."""
        gcg = self.gcg
        written = f"gcg:steps={gcg.steps},candidates={gcg.candidates}"
        first = SearchConfig(method=written, defences=gcg.defences, goals=gcg.goals, budget=None)
        return (*([first] if gcg.defences else []), *self.searches)

    @field_validator("searches")
    @classmethod
    def _each_once(cls, value: tuple[SearchConfig, ...]) -> tuple[SearchConfig, ...]:
        names = [one.name for one in value]
        twice = [name for name in names if names.count(name) > 1 or name == "gcg"]
        if twice:
            raise ValueError(f"{twice[0]} stands twice, or has its own field: figures are called by the search's name")
        return value
