"""What the runner of model calls takes and gives, and what it costs: tokens of each answer, prices per million.

Light to import: inspect, which takes a second, is not.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import Field

from forethought.records import Message, Record

if TYPE_CHECKING:
    from inspect_ai.model import Model

T = TypeVar("T")
MILLION = 1_000_000


class Price(Record):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    """Input read from the provider's prompt cache; None charges it as `input`."""


class Usage(Record):
    """What a run of calls used. Answers taken from the journal were paid for earlier and count as well."""

    calls: int = 0
    """Answers asked for in this run."""
    reused: int = 0
    """Answers that the journal already had."""
    input_tokens: int = 0
    """Prompt tokens of all answers, cached ones included."""
    output_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the provider's prompt cache served; part of `input_tokens`."""
    cost: float | None = None
    """US dollars for all of it; None where no price is known."""
    seconds: float = 0.0
    """Wall time of this run."""

    def plus(self, answer: Answer, reused: bool) -> Usage:
        """With one answer more."""
        return self.model_copy(
            update={
                "calls": self.calls + (not reused),
                "reused": self.reused + reused,
                "input_tokens": self.input_tokens + answer.input_tokens,
                "output_tokens": self.output_tokens + answer.output_tokens,
                "cached_tokens": self.cached_tokens + answer.cached_tokens,
            }
        )

    def and_also(self, other: Usage) -> Usage:
        """With another run's, at the same time: the longer of them took so long. The cost is known where both are."""
        known = None if self.cost is None or other.cost is None else self.cost + other.cost
        summed = ("calls", "reused", "input_tokens", "output_tokens", "cached_tokens")
        update = {name: getattr(self, name) + getattr(other, name) for name in summed}
        return self.model_copy(update=update | {"cost": known, "seconds": max(self.seconds, other.seconds)})


def cost_of(input_tokens: int, output_tokens: int, cached_tokens: int, price: Price | None) -> float | None:
    """US dollars, or None without a price."""
    if price is None:
        return None
    cached_rate = price.input if price.cached_input is None else price.cached_input
    total = (input_tokens - cached_tokens) * price.input + cached_tokens * cached_rate + output_tokens * price.output
    return total / MILLION


def price_of(model: Model, given: Price | None) -> Price | None:
    """The price the user gave, else the one inspect was told (`set_model_cost`), else None: unknown.

    inspect ships context lengths and no prices, so that an unknown price is the common case.
    """
    if given is not None:
        return given
    from inspect_ai.model import get_model_info  # takes a second to load, and suites load this module

    info = get_model_info(model)  # of an instance: a name might load a model only to be looked up
    if info is None or info.cost is None:
        return None
    return Price(input=info.cost.input, output=info.cost.output, cached_input=info.cost.input_cache_read)


class ClientSettings(Record):
    """How a model behind a server is asked, whatever for."""

    temperature: float | None = Field(default=None, ge=0)
    """None is the provider's default."""
    seed: int | None = None
    """For providers that take one."""
    thinking_tokens: int = Field(default=0, ge=0)
    """Added to the limit of an answer, for models that think before they answer."""
    timeout_s: int = Field(default=180, ge=1)
    """Longest wait for one answer."""
    max_retries: int = Field(default=6, ge=0)
    """How often a call that found the provider busy, down or silent is made again."""
    backoff_s: float = Field(default=1.0, ge=0)
    """First wait before such a retry; it doubles each time, up to a minute."""
    concurrency: int | None = Field(default=None, ge=1)
    """Calls at once: where it starts and its upper bound; None starts at 16 and grows to at most 128."""


class CallSettings(ClientSettings):
    """How calls are made."""

    base_url: str | None = None
    """Address of an OpenAI-compatible server; None is the provider's own."""
    attempts: int = Field(default=3, ge=1)
    """How often an answer may be asked for before the call is dropped, the first time included."""
    structured: bool = True
    """Whether the provider is asked to follow the schema; off for servers that refuse it."""
    price: Price | None = None
    """Where the provider's price is known to the user."""


class Call(Record):
    """One thing to ask."""

    key: str
    """The caller's name for it; results are given by key."""
    messages: tuple[Message, ...]
    max_tokens: int


class Answer(Record):
    """One answer of a model, as the journal keeps it under its `content_key`."""

    call: str
    """The caller's own name for the call, for people who read the file."""
    attempt: int
    """1 for the first; further ones follow a rejected answer."""
    text: str
    stop: str
    """Why the model stopped, in inspect's words: `stop`, `max_tokens`, `content_filter`, ..."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Part of `input_tokens`."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Reject:
    """Why an answer can't be used."""

    cause: str
    """Few different values: it is counted."""
    say: str = ""
    """What the model is told; the cause when empty."""


@dataclass(frozen=True)
class CallProgress:
    """Where a run stands."""

    done: int
    """Calls settled: with a value or dropped."""
    total: int
    usage: Usage
    rate: float
    """Calls settled per second in this run, reused ones left out."""
    concurrency: int
    """Calls allowed at once now."""


@dataclass(frozen=True)
class CallResults(Generic[T]):
    """What came of a run."""

    values: dict[str, T]
    """By call key, in the order of the calls."""
    dropped: dict[str, str]
    """Call key to the last cause, for calls without a value."""
    rejected: Counter[str]
    """Every rejected answer by cause, also of calls that got a value in the end."""
    usage: Usage


Accept = Callable[[str, str], T | Reject]
"""(call key, answer text) to what is read from it. Pure: it is called again on resume."""


def content_key(
    model: str, messages: Sequence[Message], max_tokens: int, settings: CallSettings, schema: Any, attempt: int
) -> str:
    """Hash of all that changes an answer: model, conversation, sampling, schema and attempt; not its address."""
    sampling = [settings.temperature, settings.seed, max_tokens + settings.thinking_tokens]
    said = [[message.role, message.content] for message in messages]
    joined = json.dumps([model, said, sampling, schema, attempt], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(joined.encode()).hexdigest()[:32]
