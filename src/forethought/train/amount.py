"""How much there is to train on: counted from built rows, or told by what a recipe would build."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from forethought.records import Record
from forethought.train.rows import IGNORED, TokenRow


class Amount(Record):
    """How much there is to train on, one epoch."""

    rows: int = Field(ge=1)
    tokens: int = Field(ge=1)
    """Prompts included, padding left out."""
    longest: int = Field(ge=1)
    """Tokens of the longest row."""
    taught_share: float = Field(gt=0.0, le=1.0)
    """Share of tokens that bear loss."""


def counted(rows: Sequence[TokenRow]) -> Amount:
    """The amount of some rows, at least one."""
    tokens = sum(row.length for row in rows)
    taught = sum(label != IGNORED for row in rows for label in row.labels)
    return Amount(
        rows=len(rows), tokens=tokens, longest=max(row.length for row in rows), taught_share=max(taught, 1) / tokens
    )
