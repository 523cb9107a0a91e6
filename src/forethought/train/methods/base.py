"""What a training method is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from forethought.chat import Tokenizer
from forethought.policy import Policy
from forethought.reasoning import Detail, Format
from forethought.records import Example, Record
from forethought.train.config import TrainConfig
from forethought.train.objectives.base import Objective
from forethought.train.rows import TokenRow, tokenize


@dataclass(frozen=True)
class Material:
    """The data that every method is given alike."""

    examples: Sequence[Example]
    tokenizer: Tokenizer
    policy: Policy
    format: Format = "think"
    detail: Detail = "short"
    seed: int = 0
    complied: Mapping[str, str] = field(default_factory=dict)
    """By request id: the base model's own answers that comply with harmful requests, cut short. They stay in the run's
    folder: methods that turn a model away from such answers need some, and nobody has to write them."""

    def row(self, example: Example, reasoning: bool) -> TokenRow:
        """One example as tokens, with its thought or without."""
        return tokenize(example, self.tokenizer, self.policy, self.format, self.detail, self.seed, reasoning)


Rows = Callable[[Material], list[TokenRow]]
MakeObjective = Callable[[TrainConfig, int], Objective]
"""(training settings, number of layers) to an objective."""


def _quiet(line: str) -> None:
    pass


@dataclass(frozen=True)
class Job:
    """One training by a method: what it is given and where it writes."""

    base: str
    """Name or folder of the base model."""
    method: TrainingMethod
    material: Material
    config: TrainConfig
    """The recipe's settings with the method's own in their place."""
    out: Path
    """Adapter (or full model), tokenizer and settings go here. What a stopped training left is gone on from."""
    max_tokens: int | None = None
    """Budget of one pass over the rows; None is all of them."""
    on_step: Callable[[int, int, dict[str, float]], None] | None = None
    """As `trainer.OnStep`."""
    say: Callable[[str], None] = _quiet
    """Told what a reader should know, one line at a time."""


Procedure = Callable[[Job], dict[str, float]]
"""Trains into `job.out`, writes the settings beside the weights, and returns counts as `fit.train` does."""


class TrainingMethod(Record):
    """A defence that is trained."""

    name: str
    title: str
    paper: str
    """Whom it follows, with the arXiv number; empty for an ablation of ours."""
    rows: Rows
    objective: MakeObjective
    thinks: bool = True
    """Whether the trained model reasons before it answers."""
    needs_complied: bool = False
    """Whether it needs the base model's answers to harmful requests."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Training settings that differ from the recipe's."""
    answer_with: Literal["adapter", "base"] = "adapter"
    """What answers after the verdict `comply`."""
    format: Format | None = None
    """Format of its thoughts; None is what the data is given with."""
    detail: Detail | None = None
    """Detail of its thoughts; None is what the data is given with."""
    weights_of: str = ""
    """Method whose weights it shares, because it differs in how it answers alone; empty: it has its own."""
    procedure: Procedure | None = None
    """What trains it, where that is more than one run of the trainer over its rows: several rounds, or another
    trainer. None is `run.train_rows`."""

    def configured(self, config: TrainConfig) -> TrainConfig:
        """The training settings, with this method's own in place of the recipe's."""
        return TrainConfig.model_validate({**config.model_dump(), **self.settings})
