"""A defence at inference: what it is, its options, and how it is put around a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forethought.defences.base import Defence
from forethought.defences.guard import RequestChecker
from forethought.engine.conversation import Respondent
from forethought.errors import ConfigError
from forethought.evals.judges.base import Judge
from forethought.policy import Policy, default_policy
from forethought.records import Record, Request

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel


@dataclass(frozen=True)
class Means:
    """What defences may use besides the model they defend; each says what it needs."""

    policy: Policy = field(default_factory=default_policy)
    model: LocalModel | None = None
    """Base weights that tell perplexities and hidden states."""
    harmless: Sequence[Request] = ()
    """Harmless requests that set the perplexity threshold."""
    answer_judge: Judge | None = None
    """Judge of harm that guards answers."""
    request_checker: RequestChecker | None = None
    """What guards requests."""
    paraphraser: Respondent | None = None
    """None: the model itself."""
    examiner: Respondent | None = None
    """None: the model itself."""

    def weights_for(self, defence: str) -> LocalModel:
        """The base weights. Raises ConfigError where a defence needs them and there are none."""
        if self.model is None:
            raise ConfigError(f"defence '{defence}'", "needs the weights of a local model", "Give it one to read with")
        return self.model


class NoSettings(Record):
    """A defence without options."""


@dataclass(frozen=True)
class Entry:
    """A defence and how to make it."""

    defence: Defence
    settings: type[Record]
    """Its options; the first one is what stands after the colon."""
    make: Callable[[Respondent, Any, Means], Respondent]
    """(model, settings, means) to the defended model."""
