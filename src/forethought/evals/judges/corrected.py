"""The true rate behind a judge's rate: Rogan and Gladen's correction, with all three uncertainties in its interval."""

from __future__ import annotations

import math

from scipy.stats import norm

from forethought.errors import InputError
from forethought.evals.metrics import Figure


def corrected_rate(
    raw: float, n: int, sensitivity: float, n_positive: int, specificity: float, n_negative: int, level: float = 0.95
) -> Figure:
    """Rogan and Gladen (1978): (raw + specificity - 1) / (sensitivity + specificity - 1), clipped to 0..1.

    `raw` is the judge's share of positives among `n` answers; sensitivity and specificity were
    measured on `n_positive` and `n_negative` answers that people labelled, from a source like
    the one that is corrected: taken elsewhere, they correct nothing. The interval is Lang and
    Reiczigel's (2014), a delta method on adjusted counts that covers near 0 and 1 too. Raises
    InputError where the judge does no better than chance, so that nothing can be corrected.
    """
    for name, value in (("raw", raw), ("sensitivity", sensitivity), ("specificity", specificity)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} {value}", "is not a share", "Give a number from 0 to 1")
    if min(n, n_positive, n_negative) < 1:
        raise InputError(f"n {n}, {n_positive}, {n_negative}", "rests on no answers", "Give counts above 0")
    youden = sensitivity + specificity - 1
    if youden <= 0:
        raise InputError(
            f"sensitivity {sensitivity:g}, specificity {specificity:g}",
            "the judge is no better than chance",
            "Use another judge",
        )
    value = _clip((raw + specificity - 1) / youden)
    low, high = _interval(raw, n, sensitivity, n_positive, specificity, n_negative, level)
    return Figure(value=value, low=min(low, value), high=max(high, value), n=n)


def _interval(
    raw: float, n: int, sensitivity: float, n_positive: int, specificity: float, n_negative: int, level: float
) -> tuple[float, float]:
    z = float(norm.ppf(0.5 + level / 2))
    share, size = (n * raw + z * z / 2) / (n + z * z), n + z * z
    sens = (n_positive * sensitivity + 1) / (n_positive + 2)
    spec = (n_negative * specificity + 1) / (n_negative + 2)
    youden = sens + spec - 1
    if youden <= 0:
        return 0.0, 1.0
    centre = (share + spec - 1) / youden
    var_sens, var_spec = sens * (1 - sens) / (n_positive + 2), spec * (1 - spec) / (n_negative + 2)
    shift = 2 * z * z * (centre * var_sens - (1 - centre) * var_spec)
    spread = math.sqrt(share * (1 - share) / size + centre * centre * var_sens + (1 - centre) ** 2 * var_spec)
    middle, half = centre + shift, z * spread / youden
    return _clip(middle - half), _clip(middle + half)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
