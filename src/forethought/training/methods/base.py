"""What a training method is, and what it is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from forethought.chat import Tokenizer
from forethought.errors import ConfigError
from forethought.policy import Policy
from forethought.progress import Progress
from forethought.reasoning import Detail, Format, render
from forethought.records import Example, Record
from forethought.training.config import TrainConfig
from forethought.training.objective import Objective, PairedObjective
from forethought.training.rows import TokenRow, tokenize


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

    def thought(self, example: Example) -> str:
        """An example's thought as `row` writes it."""
        return render(example.reasoning, self.policy, self.format, self.detail, self.seed)

    def answered(self, term: str) -> Iterator[Example]:
        """The examples of a term that hold an answer."""
        return (example for example in self.examples if example.term == term and example.answer)

    def complying(self, example: Example) -> Example | None:
        """The example with the base model's own harmful answer, where it gave one. It was cut: no end is taught."""
        answer = self.complied.get(example.request.id)
        return example.model_copy(update={"answer": answer, "answer_complete": False}) if answer else None


def reasoned(material: Material, keep: Callable[[Example], bool] = lambda example: True) -> list[TokenRow]:
    """Rows with thought and, where there is one, answer."""
    return [material.row(example, reasoning=True) for example in material.examples if keep(example)]


def paired(config: TrainConfig, n_layers: int) -> Objective:
    """The two-term loss of supervised fine-tuning."""
    return PairedObjective(config.benign_weight)


Rows = Callable[[Material], list[TokenRow]]
MakeObjective = Callable[[TrainConfig, int], Objective]
"""(training settings, number of layers) to an objective."""


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
    progress: Progress = field(default_factory=Progress)
    """Told what a reader should know; each run of a trainer has a bar of its own."""
    title: str = "train"
    """Of those bars."""
    held_out: Sequence[Example] = ()
    """Examples of no family that the material holds (`held_out.hold_out`): the method's rows of them tell when to
    stop. Empty trains to the last step."""
    budget: tuple[int, float] | None = None
    """(tokens, most passes): so many passes over the rows are made as the tokens pay for. None is as `config` says."""

    def with_method(self, **changed: Any) -> Job:
        """The job with fields of its method changed."""
        return dataclasses.replace(self, method=self.method.model_copy(update=changed))


Procedure = Callable[[Job, Any], dict[str, float]]
"""(job, the method's `procedure_settings`): trains into `job.out`, writes the settings beside the weights, and returns
counts as `fit.train` does."""


class TrainingMethod(Record):
    """A defence that is trained."""

    name: str
    title: str
    paper: str
    """Whom it follows, with the arXiv number; what is ours says so."""
    cost: str
    """What training takes, and at inference extra tokens."""
    when_to_choose: str
    trains: str = "a LoRA adapter on all linear layers, or all weights"
    """Which parameters it changes."""
    rows: Rows = reasoned
    objective: MakeObjective = paired
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
    procedure_settings: SerializeAsAny[Record] | None = None
    """Settings that the procedure has of its own; None where it has none."""
    one_run: bool = False
    """Whether the procedure runs the trainer once, over the method's rows: it makes the passes that a budget pays
    for."""
    by_row: bool = False
    """Whether it makes at most one row of an example without looking at another, so that examples may be streamed."""

    @property
    def score(self) -> str:
        """What `Response.log_odds` of a model that it trained holds, higher meaning refuse; empty where it has none."""
        return "log-odds of the verdict" if self.thinks else ""

    def configured(self, config: TrainConfig) -> TrainConfig:
        """The training settings, with this method's own in place of the recipe's."""
        return TrainConfig.model_validate({**config.model_dump(), **self.settings})

    def tuned(self, changes: Mapping[str, Any]) -> TrainingMethod:
        """The method with fields of its procedure's settings changed; the same where nothing is.

        Raises ConfigError for a method without such settings, and for a field or value that is wrong.
        """
        if not changes:
            return self
        place, settings = f"method '{self.name}'", self.procedure_settings
        if settings is None:
            raise ConfigError(f"{place}, {next(iter(changes))}", "it has no settings of its own", "Leave it out")
        kind = type(settings)
        try:
            changed = kind.model_validate({**settings.model_dump(), **changes})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{place}, {name}", first["msg"], f"It has {', '.join(kind.model_fields)}") from None
        return self.model_copy(update={"procedure_settings": changed})
