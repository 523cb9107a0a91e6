"""How long a model may think: as long as the thoughts that it was taught, and some."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from forethought.chat import Tokenizer, encode_completion
from forethought.engine.settings import THINK_BUDGET
from forethought.reasoning import VERDICT_ANCHOR
from forethought.train.methods.places import prompt_tokens
from forethought.train.rows import TokenRow

_LOOKED_AT = 512
"""Rows that are looked at, evenly spread: a thought's length hardly varies within a method."""
_SHARE = 0.95
"""Of the taught thoughts, so many are no longer than what the budget is measured by: one odd row decides nothing."""
_ROOM = 1.25
"""A new request may need more words than one that was trained on."""


def think_budget(rows: Sequence[TokenRow], tokenizer: Tokenizer) -> int:
    """Tokens of thought after which a verdict is asked for; never fewer than `THINK_BUDGET`.

    Counted from where the model's turn begins to its verdict. Rows without a verdict say nothing.
    """
    step = max(len(rows) // _LOOKED_AT, 1)
    lengths = [_before_verdict(rows[place], tokenizer) for place in range(0, len(rows), step)]
    taught = [length for length in lengths if length is not None]
    if not taught:
        return THINK_BUDGET
    return max(THINK_BUDGET, math.ceil(_ROOM * float(np.quantile(taught, _SHARE))))


def _before_verdict(row: TokenRow, tokenizer: Tokenizer) -> int | None:
    text = str(tokenizer.decode(list(row.input_ids[prompt_tokens(row) :])))
    before, anchor, _ = text.partition(VERDICT_ANCHOR)
    return len(encode_completion(tokenizer, before, end=False)) if anchor else None
