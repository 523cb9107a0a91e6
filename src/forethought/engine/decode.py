"""Batched decoding with a hand on the verdict.

One loop serves everything. A row may be *watched*: when its text reaches the verdict's
anchor, the log-odds of refusing against complying are read from the very logits that
would pick the next token, and the token is chosen by the threshold. A row that thinks
past its budget, or closes its thought without a verdict, is led to the anchor: every
thought ends in a verdict with a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

VERDICT_TOKENS = 48
"""Room for the verdict's rules and reasons, up to the closing marker."""


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
    made: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    log_odds: float | None = None
    led: bool = False
    refuses: bool | None = None
    verdict_at: int | None = None
    closed_at: int | None = None
    """Number of tokens made when the thought closed."""
    done: bool = False


class Decoder:
    """Greedy or sampled decoding of many rows with one model."""

    def __init__(
        self, model: Any, tokenizer: Any, end_ids: frozenset[int], batch_size: int = 128, tail_tokens: int = 8
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._batch_size = batch_size
        self._tail = tail_tokens

    def run(
        self,
        rows: Sequence[Row],
        verdict: VerdictTokens | None = None,
        threshold: float = 0.0,
        think_budget: int = 64,
        on_done: Callable[[int], None] | None = None,
    ) -> None:
        """Decodes all rows in place, longest batches first so that memory peaks at once.

        `threshold`: a watched row refuses when its log-odds are at least this. `on_done(n)`
        is called after each batch with the number of rows finished.
        """
        ordered = sorted(rows, key=lambda row: len(row.prompt) + row.max_new, reverse=True)
        for start in range(0, len(ordered), self._batch_size):
            batch = ordered[start : start + self._batch_size]
            self._run_batch(batch, verdict, threshold, think_budget)
            if on_done is not None:
                on_done(len(batch))

    @torch.inference_mode()
    def _run_batch(self, rows: list[Row], verdict: VerdictTokens | None, threshold: float, think_budget: int) -> None:
        device = self._model.device
        longest = max(len(row.prompt) for row in rows)
        pad = next(iter(self._end_ids))
        ids = torch.tensor([[pad] * (longest - len(row.prompt)) + row.prompt for row in rows], device=device)  # B T
        mask = torch.tensor(
            [[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device
        )  # B T
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache()
        if longest > 1:
            # All but the last token go through the decoder alone: a head on the last of many positions makes torch
            # copy the vocabulary's projection once for every row.
            self._model.get_decoder()(
                input_ids=ids[:, :-1],
                attention_mask=mask[:, :-1],
                position_ids=positions[:, :-1],
                past_key_values=cache,
            )
        ids, positions = ids[:, -1:], positions[:, -1:]
        active = list(rows)
        while active:
            out = self._model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache)
            logits = out.logits[:, -1].float()  # B V
            greedy = logits.argmax(-1).tolist()
            for place, row in enumerate(active):
                self._step(row, logits[place], greedy[place], verdict, threshold, think_budget)
            keep = [place for place, row in enumerate(active) if not row.done]
            if not keep:
                return
            if len(keep) < len(active):
                chosen = torch.tensor(keep, device=device)
                cache.batch_select_indices(chosen)
                mask, positions = mask[chosen], positions[chosen]
                active = [active[place] for place in keep]
            ids = torch.tensor([[row.made[-1]] for row in active], device=device)
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            positions = positions + 1

    def _step(
        self,
        row: Row,
        logits: torch.Tensor,  # V
        greedy: int,
        verdict: VerdictTokens | None,
        threshold: float,
        think_budget: int,
    ) -> None:
        token = greedy
        if row.forced:
            token = row.forced.pop(0)
        elif row.watch and verdict is not None and row.log_odds is None:
            token = self._watched(row, logits, greedy, verdict, threshold, think_budget)
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
        if row.closed_at is None:  # a verdict that rambles on is cut like an answer
            return len(row.made) - verdict_at >= VERDICT_TOKENS + row.max_new
        if row.stop_at_comply and row.refuses is False:
            return True
        return len(row.made) - row.closed_at >= row.max_new

    def _watched(
        self,
        row: Row,
        logits: torch.Tensor,
        greedy: int,
        verdict: VerdictTokens,
        threshold: float,
        think_budget: int,
    ) -> int:
        """The next token of a row that has no verdict yet."""
        if self._text(row.made[-self._tail :]).endswith(verdict.anchor):
            odds = float(logits[verdict.refuse[0]] - logits[verdict.comply[0]])
            row.log_odds = odds
            row.refuses = odds >= threshold
            row.verdict_at = len(row.made)
            first, *rest = verdict.refuse if row.refuses else verdict.comply
            row.forced = list(rest)
            return first
        closes = greedy in self._end_ids or verdict.closing in self._text([*row.made[-self._tail :], greedy])
        if len(row.made) >= think_budget or closes:
            row.led = True
            first, *rest = verdict.lead_in
            row.forced = list(rest)
            return first
        return greedy

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False)) if ids else ""
