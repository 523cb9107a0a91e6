"""Fitting which rule a harmful request breaks: one softmax over the rules, at the layer that tells them apart best.

Harm is the plainest in the middle of the stack; what kind of harm it is, somewhat above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forethought.engine.hidden_states import States
from forethought.evals.inside.heads import FEWEST_OF_A_RULE, Array, fit_classes

RULE_STRENGTHS = (0.0003, 0.001, 0.003)
"""Values tried for the inverse regularisation (scikit-learn's C), on standardised states; the middle one first."""


@dataclass(frozen=True)
class RuleFit:
    """Fitted weights (rules, hidden size) and biases (rules)."""

    rules: tuple[str, ...]
    layer: int
    strength: float
    weights: Array
    biases: Array
    right_dev: float
    """Share of the development requests whose rule is found: optimistic, since they chose layer and strength."""


def fit_rules(
    fit: Mapping[int, States],
    fit_rules_of: Sequence[Sequence[str]],
    dev: Mapping[int, States],
    dev_rules_of: Sequence[Sequence[str]],
    rule_ids: Sequence[str],
    strengths: Sequence[float] = RULE_STRENGTHS,
) -> RuleFit | None:
    """The best of the layers, then of the strengths; None where no rule has requests enough.

    Both mappings are layer to states (requests, hidden size); a request without rules, harmless ones among them, has
    no part. One with several rules is one request of each, in parts. A tie goes to the lower.
    """
    counts = Counter(rule for rules in fit_rules_of for rule in set(rules))
    kept = tuple(rule for rule in rule_ids if counts[rule] >= FEWEST_OF_A_RULE)
    if not kept:
        return None
    taught = [
        (row, kept.index(rule), 1 / len(known))
        for row, rules in enumerate(fit_rules_of)
        for known in [[rule for rule in dict.fromkeys(rules) if rule in kept]]
        for rule in known
    ]
    rows, classes, weight = (np.array(column) for column in zip(*taught, strict=True))

    def fitted(layer: int, strength: float) -> RuleFit:
        weights, biases = fit_classes(fit[layer][rows], classes, strength, weight)
        right = _right(dev[layer] @ weights.T + biases, dev_rules_of, kept)
        return RuleFit(kept, layer, strength, weights, biases, right)

    def rank(one: RuleFit) -> tuple[float, int, float]:
        return round(one.right_dev, 6), -one.layer, -one.strength

    middle = sorted(strengths)[len(strengths) // 2]
    best = max((fitted(layer, middle) for layer in fit), key=rank)
    return max([best, *(fitted(best.layer, strength) for strength in strengths if strength != middle)], key=rank)


def _right(scores: Array, rules_of: Sequence[Sequence[str]], kept: Sequence[str]) -> float:
    """Share of the requests with rules whose highest score is of one of theirs; 0 without any."""
    found = [kept[int(place)] in rules for place, rules in zip(scores.argmax(1), rules_of, strict=True) if rules]
    return float(np.mean(found)) if found else 0.0
