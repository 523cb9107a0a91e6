"""The smallest difference a sample can show: 80 % power at the 5 % level, two-sided."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.power import NormalIndPower

POWER, LEVEL = 0.8, 0.05


def detectable_unpaired(share: float, n_a: int, n_b: int, power: float = POWER, level: float = LEVEL) -> float | None:
    """Smallest difference from `share` that two separate samples can show, in the direction with more room.

    By Cohen's effect size h (1988, chapter 6), as in statsmodels. None where no share in
    that direction is far enough away.
    """
    if n_a < 1 or n_b < 1:
        return None
    h = float(NormalIndPower().solve_power(nobs1=n_a, ratio=n_b / n_a, alpha=level, power=power))
    up = share <= 0.5
    angle = 2 * math.asin(math.sqrt(share)) + (h if up else -h)
    return abs(math.sin(angle / 2) ** 2 - share) if 0 <= angle <= math.pi else None


def detectable_paired(discordant: float, n: int, power: float = POWER, level: float = LEVEL) -> float | None:
    """Smallest difference of two shares that McNemar's test can show on n pairs.

    `discordant`: share of pairs on which the two are expected to differ; a difference above it
    takes as many discordant pairs, all in one direction. After Connor (1987). None where even
    a difference on every pair would not be shown.
    """
    if n < 1:
        return None
    alpha, beta = norm.ppf(1 - level / 2), norm.ppf(power)

    def short(difference: float) -> float:
        differing = max(discordant, difference)
        spread = math.sqrt(max(0.0, differing - difference**2))
        return float(difference * math.sqrt(n) - alpha * math.sqrt(differing) - beta * spread)

    if short(1.0) < 0:
        return None
    # Near zero the sign is lost in the square roots, where nothing can be shown anyway.
    return float(brentq(short, 1e-9, 1.0))


def detectable(standard_error: float, power: float = POWER, level: float = LEVEL) -> float:
    """Smallest difference that an estimate with this standard error can show, whatever it measures."""
    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * standard_error)


def pairs_needed(difference: float, discordant: float, power: float = POWER, level: float = LEVEL) -> int:
    """Pairs with which McNemar's test shows a difference; Connor (1987), rounded up."""
    alpha, beta = norm.ppf(1 - level / 2), norm.ppf(power)
    root = alpha * math.sqrt(discordant) + beta * math.sqrt(max(0.0, discordant - difference**2))
    return math.ceil(float(root / difference) ** 2)
