"""The smallest difference a sample can show: 80 % power at the 5 % level, two-sided."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm

POWER, LEVEL = 0.8, 0.05


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
