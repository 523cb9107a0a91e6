"""What teaching will cost, before the first call."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.data.teachers.prompt import TeachTask, expected_tokens, system_prompt, tokens_in, user_prompt
from forethought.engine.calls import CallSettings
from forethought.engine.pricing import Price, cost_of
from forethought.policy import Policy
from forethought.records import Record

PAPER_CALLS = {True: 7, False: 3}
"""Calls the published pipeline makes for a harmful and a harmless request (arXiv 2501.19180)."""


class Estimate(Record):
    """Expected use of a run in which every answer is accepted at once. Tokens are estimated from characters."""

    calls: int
    input_tokens: int
    """All prompt tokens."""
    shared_tokens: int
    """Part of `input_tokens` that is the same in every call; a prompt cache may serve it cheaper."""
    output_tokens: int
    cost: float | None
    """US dollars, without cache discounts; None where the price is unknown."""
    paper_calls: int
    """Calls that the published pipeline would make for the same requests."""
    attempts: int
    """Most calls for one request: rejected answers are asked for again."""

    def __str__(self) -> str:
        price = "unknown price (give one per million tokens)" if self.cost is None else f"about ${self.cost:,.2f}"
        shared = round(100 * self.shared_tokens / self.input_tokens) if self.input_tokens else 0
        return (
            f"{self.calls:,} calls (at most {self.attempts} for a request; the published pipeline makes"
            f" {self.paper_calls:,}), about {self.input_tokens:,} tokens in ({shared}% of them the same in every call)"
            f" and {self.output_tokens:,} out: {price}"
        )


def estimate(tasks: Sequence[TeachTask], policy: Policy, settings: CallSettings, price: Price | None) -> Estimate:
    """Calls, tokens and price of teaching these tasks; `price` as `pricing.price_of` gives it."""
    system = tokens_in(system_prompt(policy))
    shared = system * len(tasks)
    asked = shared + sum(tokens_in(user_prompt(task)) for task in tasks)
    written = sum(expected_tokens(task) + settings.thinking_tokens for task in tasks)
    return Estimate(
        calls=len(tasks),
        input_tokens=asked,
        shared_tokens=shared,
        output_tokens=written,
        cost=cost_of(asked, written, 0, price),
        paper_calls=sum(PAPER_CALLS[bool(task.request.harmful)] for task in tasks),
        attempts=settings.attempts,
    )
