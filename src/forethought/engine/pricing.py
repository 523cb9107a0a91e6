"""What calls cost: tokens counted from each answer, prices per million tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from forethought.records import Record

if TYPE_CHECKING:
    from inspect_ai.model import Model

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
    from inspect_ai.model import get_model_info  # takes a second to load, and suites load this module

    info = get_model_info(model)  # of an instance: a name might load a model only to be looked up
    if given is not None:
        return given
    if info is None or info.cost is None:
        return None
    return Price(input=info.cost.input, output=info.cost.output, cached_input=info.cost.input_cache_read)
