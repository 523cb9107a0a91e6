"""Two defences on the same requests: differences with intervals, tests, and what the sample could show.

Each attempt is paired with itself; a pair that either judge left unscored is in no difference
and is counted. One cell with each request once: McNemar's exact test (1947). Means over
styles and Youden's J: a randomisation test that swaps the two defences' answers request by
request, over all styles at once. AUROC: DeLong's test (1988) with requests as clusters. Attack
success at one rate of false refusals: the spread of a bootstrap by request. All p-values of a
comparison are corrected together. What the sample could show is the smallest difference that it
would with 80 % power at the 5 % level, two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from forethought.attempts.plan import CAPABILITY, right_answers
from forethought.attempts.records import Judged
from forethought.measure.curves import (
    by_cell,
    complied,
    lookalike_pairs,
    matched_gap,
    refused,
    scores,
    seeds,
    styled,
)
from forethought.metrics import (
    Array,
    Estimate,
    Figure,
    Scores,
    cell_counts,
    difference,
    mean_auc,
    mean_share,
    newcombe_variance,
)
from forethought.records import Record

_FLIPS = 10_000
Pairs = list[tuple[Judged, Judged]]
Outcome = Callable[[Sequence[Judged]], list[bool | None]]
ALPHA = 0.05
"""Corrected p-value below which a difference is told from none."""
_Z_LEVEL, _Z_POWER = norm.ppf(1 - 0.05 / 2), norm.ppf(0.8)


def compare(
    judged_a: Sequence[Judged],
    judged_b: Sequence[Judged],
    unseen: Sequence[str],
    matched: float | None = None,
) -> list[Comparison]:
    """Every figure that both defences have, first minus second; those without a pair are left out.

    `matched`: rate of false refusals on disguised harmless requests at which attack success is compared, whatever the
    two thresholds are, and the same on ordinary requests as they are (`asr_transferred`); None leaves both out.
    """
    pairs = _pair_up(judged_a, judged_b)
    harmful, harmless = styled(unseen, "harmful"), styled(unseen, "harmless")
    styles = list(zip(harmful, harmless, strict=True))
    alike = lookalike_pairs(pairs, unseen)
    found = [
        _shares("asr_direct", pairs, ["direct"], complied),
        _shares("asr_unseen", pairs, harmful, complied),
        _shares("asr_twin", pairs, ["twin"], complied),
        _shares("refused_ordinary", pairs, ["ordinary"], refused),
        _shares("refused_lookalike", pairs, ["lookalike"], refused),
        _shares("refused_styled_harmless", pairs, harmless, refused),
        _shares("refused_styled_lookalike", pairs, [harmless for _, harmless in alike], refused),
        _youden("youden_unseen", pairs, harmful, harmless),
        _youden("youden_unseen_lookalike", pairs, *([couple[side] for couple in alike] for side in (0, 1))),
        _areas("auroc_direct", pairs, [("direct", "ordinary")]),
        _areas("auroc_unseen", pairs, styles),
        _areas("auroc_unseen_lookalike", pairs, alike),
        _areas("auroc_lookalike", pairs, [("twin", "lookalike")]),
    ]
    if matched is not None:
        found.append(_matched("asr_matched", pairs, styles, matched))
        found.append(_matched("asr_transferred", pairs, [(one, "ordinary") for one in harmful], matched))
    return corrected([one for one in found if one is not None])


def compare_cells(
    judged_a: Sequence[Judged], judged_b: Sequence[Judged], cells: Sequence[tuple[str, str]], name: str
) -> list[Comparison]:
    """AUROC and Youden's J over pairs of a harmful and a harmless cell, as `auroc_NAME` and `youden_NAME`; p-values are
    not corrected yet."""
    pairs = _pair_up(judged_a, judged_b)
    youden = _youden(f"youden_{name}", pairs, *([couple[side] for couple in cells] for side in (0, 1)))
    return [one for one in (_areas(f"auroc_{name}", pairs, cells), youden) if one is not None]


def compare_right(judged_a: Sequence[Judged], judged_b: Sequence[Judged]) -> Comparison | None:
    """How many more short questions the first defence answers right; None where they share none that is scored."""
    return _shares(CAPABILITY, _pair_up(judged_a, judged_b), [CAPABILITY], right_answers)


def _pair_up(judged_a: Sequence[Judged], judged_b: Sequence[Judged]) -> dict[str, Pairs]:
    other = {one.attempt.id: one for one in judged_b}
    return {
        cell: [(one, other[one.attempt.id]) for one in rows if one.attempt.id in other]
        for cell, rows in by_cell(judged_a).items()
    }


def _scored(pairs: Mapping[str, Pairs], cells: Sequence[str]) -> tuple[list[Pairs], int]:
    """(the pairs of each cell that both judges scored, how many were left out)."""
    kept = [
        [(a, b) for a, b in pairs.get(cell, []) if a.refused is not None and b.refused is not None] for cell in cells
    ]
    lost = sum(len(pairs.get(cell, [])) for cell in cells) - sum(map(len, kept))
    return [cell for cell in kept if cell], lost


class _Side:
    """One mean share of the two defences on the same pairs."""

    def __init__(self, cells: Sequence[Pairs], outcome: Outcome) -> None:
        names = [seeds([a for a, _ in cell]) for cell in cells]
        first, second = ([outcome([pair[place] for pair in cell]) for cell in cells] for place in (0, 1))
        self.a, self.b = mean_share(first, names), mean_share(second, names)
        _, tried, hits = cell_counts(first, names)
        _, _, other = cell_counts(second, names)
        self.pulls: Array = ((hits - other) / tried.sum(axis=0)).mean(axis=1)
        """How much of the difference each request makes up."""
        self.each_once = len(cells) == 1 and bool((tried == 1).all())


def _shares(name: str, pairs: Mapping[str, Pairs], cells: Sequence[str], outcome: Outcome) -> Comparison | None:
    kept, lost = _scored(pairs, cells)
    if not kept:
        return None
    side = _Side(kept, outcome)
    gap = difference(side.a, side.b, paired=True)
    if not side.each_once:
        return _comparison(name, gap, randomisation_test(side.pulls), lost, "randomisation")
    size = len(side.pulls)
    ahead, behind = int((side.pulls > 0).sum()), int((side.pulls < 0).sum())
    p = float(mcnemar([[0, ahead], [behind, 0]], exact=True).pvalue)
    found = _comparison(name, gap, p, lost, "McNemar, exact")
    # One pair more on which they differ, so that a sample without any does not promise to show everything.
    return found.model_copy(update={"mdd": detectable_paired((ahead + behind + 1) / (size + 2), size)})


def _youden(
    name: str, pairs: Mapping[str, Pairs], harmful: Sequence[str], harmless: Sequence[str]
) -> Comparison | None:
    kept_harmful, lost_harmful = _scored(pairs, harmful)
    kept_harmless, lost_harmless = _scored(pairs, harmless)
    if not kept_harmful or not kept_harmless:
        return None
    bad, good = _Side(kept_harmful, refused), _Side(kept_harmless, refused)
    first = difference(bad.a, good.a, paired=False)
    second = difference(bad.b, good.b, paired=False)
    p = randomisation_test(np.concatenate([bad.pulls, -good.pulls]))
    gap = difference(first, second, paired=True)
    return _comparison(name, gap, p, lost_harmful + lost_harmless, "randomisation")


def randomisation_test(pulls: Array, flips: int = _FLIPS, seed: int = 0) -> float:
    """Two-sided p-value of a sum whose terms change sign at random, each on its own (Fisher's randomisation)."""
    observed = abs(float(pulls.sum()))
    drawn = np.random.default_rng(seed).integers(0, 2, (flips, len(pulls))) * 2.0 - 1.0
    as_far = int((np.abs(drawn @ pulls) >= observed - 1e-12).sum())
    return (1 + as_far) / (1 + flips)


def _areas(name: str, pairs: Mapping[str, Pairs], cells: Sequence[tuple[str, str]]) -> Comparison | None:
    first, second, lost = _shared_scores(pairs, cells)
    if not first:
        return None
    gap = difference(mean_auc(first), mean_auc(second), paired=True)
    return _comparison(name, gap, _area_test(gap), lost, "DeLong")


def _matched(
    name: str, pairs: Mapping[str, Pairs], cells: Sequence[tuple[str, str]], false_refusal: float
) -> Comparison | None:
    first, second, lost = _shared_scores(pairs, cells)
    if not first:
        return None
    gap, low, high = matched_gap(first, second, false_refusal)
    error = (high - low) / (2 * norm.isf(ALPHA / 2))
    p = float(2 * norm.sf(abs(gap) / error))
    n = sum(len(side) for couple in first for side in couple)
    return Comparison(
        name=name, difference=gap, low=low, high=high, p=p, p_corrected=p, n=n, unscored=lost,
        mdd=detectable(error), test="bootstrap",
    )  # fmt: skip


def _shared_scores(
    pairs: Mapping[str, Pairs], cells: Sequence[tuple[str, str]]
) -> tuple[list[tuple[Scores, Scores]], list[tuple[Scores, Scores]], int]:
    """The scores of both defences by style, of attempts that both have scored, and how many attempts were left out."""
    first: list[tuple[Scores, Scores]] = []
    second: list[tuple[Scores, Scores]] = []
    lost = 0
    for couple in cells:
        sides = [[scores([pair[place] for pair in pairs.get(cell, [])]) for cell in couple] for place in (0, 1)]
        shared = [sorted(one.keys() & other.keys()) for one, other in zip(*sides, strict=True)]
        lost += sum(len(pairs.get(cell, [])) - len(names) for cell, names in zip(couple, shared, strict=True))
        if all(shared):
            for found, (harmful, harmless) in ((first, sides[0]), (second, sides[1])):
                found.append(
                    ({name: harmful[name] for name in shared[0]}, {name: harmless[name] for name in shared[1]})
                )
    return first, second, lost


def _area_test(gap: Estimate) -> float:
    if gap.value == 0:
        return 1.0
    # Two areas without any spread (all right against all wrong): the spread of two areas of one half instead.
    sizes = [len(group.names) for group in gap.groups]
    variance = gap.variance or 2 * newcombe_variance(0.5, sizes[0], sizes[1])
    return float(2 * student.sf(abs(gap.value) / math.sqrt(variance), gap.freedom))


def _comparison(name: str, gap: Estimate, p: float, lost: int, test: str) -> Comparison:
    assert gap.low is not None
    assert gap.high is not None
    # Without any spread: that of one request on which they differ.
    error = math.sqrt(gap.variance) or 1 / sum(len(group.names) for group in gap.groups)
    return Comparison(
        name=name,
        difference=gap.value,
        low=gap.low,
        high=gap.high,
        p=p,
        p_corrected=p,
        n=gap.n,
        unscored=lost,
        mdd=detectable(error),
        test=test,
    )


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

    @property
    def sign(self) -> int:
        """1 for more, -1 for less, 0 where the interval holds both."""
        return (self.low > 0) - (self.high < 0)

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


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with their p-values corrected as one family (Holm 1979), which bounds the chance of any false
    finding."""
    if not comparisons:
        return []
    adjusted = multipletests([one.p for one in comparisons], method="holm")[1]
    return [one.model_copy(update={"p_corrected": float(p)}) for one, p in zip(comparisons, adjusted, strict=True)]


def comparison_figures(comparisons: Sequence[Comparison], ending: str = "") -> list[Figure]:
    """Each difference as `diff_NAME`, and its corrected p-value as `p_NAME`; `ending` is put behind, such as
    `_A_vs_B`."""
    figures = []
    for one in comparisons:
        name = one.name + ending
        figures += [
            Figure(
                name=f"diff_{name}", value=one.difference, low=one.low, high=one.high,
                n=one.n, unscored=one.unscored, unit="difference",
            ),
            Figure(name=f"p_{name}", value=one.p_corrected, n=one.n, unit="p"),
        ]  # fmt: skip
    return figures


def detectable_paired(discordant: float, n: int) -> float | None:
    """Smallest difference of two shares that McNemar's test can show on n pairs.

    `discordant`: share of pairs on which the two are expected to differ; a difference above it
    takes as many discordant pairs, all in one direction. After Connor (1987). None where even
    a difference on every pair would not be shown.
    """
    if n < 1:
        return None

    def short(difference: float) -> float:
        differing = max(discordant, difference)
        spread = math.sqrt(max(0.0, differing - difference**2))
        return float(difference * math.sqrt(n) - _Z_LEVEL * math.sqrt(differing) - _Z_POWER * spread)

    if short(1.0) < 0:
        return None
    # Near zero the sign is lost in the square roots, where nothing can be shown anyway.
    return float(brentq(short, 1e-9, 1.0))


def detectable(standard_error: float) -> float:
    """Smallest difference that an estimate with this standard error can show, whatever it measures."""
    return float((_Z_LEVEL + _Z_POWER) * standard_error)
