"""One sequence at each token, with a hand on the verdict; `continuous` runs many of them side by side.

One rule serves everything. A row may be *watched*: when its text reaches the verdict's
anchor, the log-odds of refusing against complying are read from the very logits that
would pick the next token, and the token is chosen by the threshold. A row that thinks
past its budget, or closes its thought without a verdict, is led to the anchor: every
thought ends in a verdict with a probability. One that rambles on after its verdict, or
stops there, is closed: every verdict is acted on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from forethought.engine.draws import Draws

VERDICT_TOKENS = 48
"""Room for the verdict's rules and reasons, the closing marker included."""


@dataclass(frozen=True)
class VerdictTokens:
    """Token ids that the decoder needs to steer a verdict."""

    anchor: str
    """Text after which the verdict comes."""
    lead_in: tuple[int, ...]
    """Tokens that bring a row to the anchor when its budget is spent."""
    refuse: tuple[int, ...]
    comply: tuple[int, ...]
    closing: str
    """Text that ends the thought."""
    close: tuple[int, ...]
    """Tokens that end it where the model does not."""


@dataclass
class Row:
    """One sequence being decoded; the working state of the loop."""

    index: int
    """Position in the caller's list."""
    prompt: list[int]
    """Prompt token ids, forced opening included."""
    max_new: int
    """Most tokens to generate; for a watched row, most tokens of answer after its thought has closed."""
    watch: bool = False
    """True to steer and record a verdict."""
    stop_at_comply: bool = False
    """True to stop where the thought closes after `comply`: the answer comes from elsewhere."""
    stop_at_verdict: bool = False
    """True to stop with the verdict itself: only its odds are wanted."""
    think_budget: int = 64
    """Tokens of thought after which the row is led to its verdict; 0 leads it there at once."""
    opened: int = 0
    """Last tokens of the prompt that belong to the model's own turn: an anchor may begin in them."""
    draws: Draws | None = None
    """Random numbers that its tokens are drawn by; None is greedy."""
    made: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    log_odds: float | None = None
    led: bool = False
    refuses: bool | None = None
    verdict_at: int | None = None
    closed_at: int | None = None
    """Number of tokens made when the thought closed."""
    done: bool = False


class Steering:
    """What happens to a row at each token: what the model proposes, forced, or decided at the verdict."""

    def __init__(
        self,
        tokenizer: Any,
        end_ids: frozenset[int],
        verdict: VerdictTokens | None = None,
        threshold: float = 0.0,
        tail_tokens: int = 8,
    ) -> None:
        """`threshold`: a watched row refuses when its log-odds are at least this."""
        self._tokenizer, self._end_ids = tokenizer, end_ids
        self._verdict, self._threshold, self._tail = verdict, threshold, tail_tokens

    def step(self, row: Row, logits: torch.Tensor, proposed: int) -> None:
        """Adds one token to a row, and says on it whether it is done. `logits` of shape (vocabulary,).

        `proposed`: the likeliest token, or the one that was drawn. The verdict is the threshold's all the same.
        """
        verdict = self._verdict
        token = proposed
        if row.forced:
            token = row.forced.pop(0)
        elif row.watch and verdict is not None and row.verdict_at is None:
            token = self._watched(row, logits, proposed, verdict)
        elif row.verdict_at is not None and verdict is not None and row.closed_at is None:
            token = self._closed(row, row.verdict_at, proposed, verdict)
        row.made.append(token)
        if token in self._end_ids and not row.forced:
            row.done = True
        elif not row.watch:
            row.done = len(row.made) >= row.max_new
        elif row.verdict_at is not None and verdict is not None and not row.forced:
            row.done = self._finished(row, row.verdict_at, verdict)

    def _finished(self, row: Row, verdict_at: int, verdict: VerdictTokens) -> bool:
        """Whether a row with a verdict has all that is wanted of it."""
        if row.stop_at_verdict:
            return True
        if row.closed_at is None and verdict.closing in self._text(row.made[verdict_at:]):
            row.closed_at = len(row.made)
        if row.closed_at is None:
            return False
        if row.stop_at_comply and row.refuses is False:
            return True
        return len(row.made) - row.closed_at >= row.max_new

    def _closed(self, row: Row, verdict_at: int, proposed: int, verdict: VerdictTokens) -> int:
        """The next token between verdict and closing marker."""
        spent = len(row.made) - verdict_at >= VERDICT_TOKENS - len(verdict.close)
        if not spent and proposed not in self._end_ids:
            return proposed
        first, *rest = verdict.close
        row.forced = list(rest)
        return first

    def _watched(self, row: Row, logits: torch.Tensor, proposed: int, verdict: VerdictTokens) -> int:
        """The next token of a row that has no verdict yet."""
        if self._tail_of(row).endswith(verdict.anchor):
            odds = float(logits[verdict.refuse[0]] - logits[verdict.comply[0]])
            row.log_odds = odds
            row.refuses = odds >= self._threshold
            row.verdict_at = len(row.made)
            first, *rest = verdict.refuse if row.refuses else verdict.comply
            row.forced = list(rest)
            return first
        closes = proposed in self._end_ids or verdict.closing in self._tail_of(row, proposed)
        if len(row.made) >= row.think_budget or closes:
            row.led = True
            first, *rest = verdict.lead_in
            row.forced = list(rest)
            return first
        return proposed

    def _tail_of(self, row: Row, *further: int) -> str:
        """The end of the model's own turn."""
        made = row.made[-self._tail :]
        n_before = min(self._tail - len(made), row.opened)
        before = row.prompt[-n_before:] if n_before else []
        return self._text([*before, *made, *further])

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False)) if ids else ""
