"""What a model can still do: question files as lm-eval tasks, for the base model and the defended one alike."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pydantic import Field

from forethought.errors import ConfigError
from forethought.records import Record

INSTALL = "pip install 'forethought[capability]'"


def need_lm_eval() -> None:
    """Raises ConfigError that names the install command where lm-eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("lm-eval", "is not installed, and capability is measured through it", f"Run: {INSTALL}")


class CapabilityConfig(Record, use_attribute_docstrings=True):
    """What is put to a model and how; the same for the base model and the defended one."""

    form: Literal["loglikelihood", "generate"] = "loglikelihood"
    """Compare likelihoods of the options, or let the model write and extract the answer."""
    choices: Literal["text", "letter"] = "text"
    """Score each option's own text (as lm-eval's ARC and PIQA), or the letter of an option that the prompt lists (as
    its MMLU)."""
    prompt: Literal["plain", "chat"] | None = None
    """`chat` puts each question in a user turn of the model's template. Default: chat for a trained model (and its
    base), else plain."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many questions a file, drawn by seed, strata kept."""
    seed: int = 0
    """Of the sample and of the worked examples."""
    shots: int = Field(default=0, ge=0)
    """Worked examples before each question, from the questions that are not asked."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest written answer. Default: by kind."""
    think_budget: int | None = Field(default=None, ge=1)
    """Tokens of thought before a verdict is asked for. Default: the model's own."""

    def prompted(self, trained: bool) -> CapabilityConfig:
        """With the prompt that a model gets which was trained, or was not."""
        return self.model_copy(update={"prompt": self.prompt or ("chat" if trained else "plain")})
