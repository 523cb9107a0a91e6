"""What one defence has over another in one figure: as a record, corrected with others, and as figures by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from statsmodels.stats.multitest import multipletests

from forethought.evals.metrics import Figure
from forethought.records import Record

Correction = Literal["holm", "fdr_bh"]
"""Holm bounds the chance of any false finding; Benjamini and Hochberg the share of false ones among the findings."""
ALPHA = 0.05
"""Corrected p-value below which a difference is told from none."""


class Comparison(Record):
    """What one defence has over another in one figure."""

    name: str
    """The figure compared, such as `asr_direct`."""
    difference: float
    """First defence minus second."""
    low: float
    high: float
    """Ends of the 95 % interval, not corrected for the number of comparisons."""
    p: float
    """Two-sided, of no difference."""
    p_corrected: float
    """The same, corrected for all comparisons made together."""
    n: int
    """Attempts that both defences have a scored answer to."""
    unscored: int = 0
    """Attempts left out because one of the two is unscored."""
    mdd: float | None
    """Minimum detectable difference: the smallest that this sample would show with 80 % power. None: none at all."""
    test: str

    def __str__(self) -> str:
        text = (
            f"{self.name}: {self.difference:+.2f} ({self.low:+.2f} to {self.high:+.2f}),"
            f" p {self.p_corrected:.3f} corrected ({self.test}), {self.n} pairs"
        )
        if self.p_corrected < ALPHA:
            return text
        if self.mdd is None:
            return f"{text}; too few pairs for any difference to show"
        return f"{text}; a difference below {self.mdd:.2f} would not show in a sample of this size"


def corrected(comparisons: Sequence[Comparison], correction: Correction = "holm") -> list[Comparison]:
    """The comparisons with their p-values corrected as one family."""
    if not comparisons:
        return []
    adjusted = multipletests([one.p for one in comparisons], method=correction)[1]
    return [one.model_copy(update={"p_corrected": float(p)}) for one, p in zip(comparisons, adjusted, strict=True)]


def comparison_figures(comparisons: Sequence[Comparison], a: str, b: str) -> list[Figure]:
    """Each difference as `diff_NAME_A_vs_B`, and its corrected p-value as `p_NAME_A_vs_B`."""
    figures = []
    for one in comparisons:
        ending = f"{one.name}_{a}_vs_{b}"
        figures += [
            Figure(
                name=f"diff_{ending}", value=one.difference, low=one.low, high=one.high,
                n=one.n, unscored=one.unscored, unit="difference",
            ),
            Figure(name=f"p_{ending}", value=one.p_corrected, n=one.n, unit="p"),
        ]  # fmt: skip
    return figures
