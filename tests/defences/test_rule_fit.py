"""Which rule a harmful request breaks: classes told apart by one softmax, the layer chosen on development requests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from forethought.defences.rule_fit import RuleFit, fit_rules
from forethought.engine.hidden_states import States
from forethought.evals.inside.heads import fit_classes

IDS = ("R1", "R2", "R3", "R4")


def _told_apart(rules: Sequence[Sequence[str]], seed: int, noise: float = 0.1) -> States:
    """States whose first coordinates say which rule is broken."""
    rng = np.random.default_rng(seed)
    states = rng.normal(scale=noise, size=(len(rules), 6))
    for row, broken in enumerate(rules):
        for rule in broken:
            states[row, IDS.index(rule)] += 1.0
    return states.astype(np.float32)


TRAIN = [("R1",), ("R2",), ("R4",)] * 8 + [()] * 5 + [("R3",)] * 2
DEV = [("R1",), ("R4",), (), ("R2",)]


def _fit(**more: float) -> RuleFit:
    blurred = {1: _told_apart(TRAIN, 1, noise=5.0), 2: _told_apart(TRAIN, 1)}
    found = fit_rules(blurred, TRAIN, {1: _told_apart(DEV, 2, noise=5.0), 2: _told_apart(DEV, 2)}, DEV, IDS)
    assert found is not None
    return found


def test_the_layer_that_tells_rules_apart_is_chosen_and_rare_rules_have_no_head() -> None:
    found = _fit()
    assert (found.rules, found.layer, found.right_dev) == (("R1", "R2", "R4"), 2, 1.0)
    assert found.weights.shape == (3, 6)
    scores = _told_apart(DEV, 3) @ found.weights.T + found.biases
    assert [found.rules[place] for place in scores.argmax(1)[[0, 1, 3]]] == ["R1", "R4", "R2"]


def test_a_request_of_several_rules_is_one_of_each_in_parts() -> None:
    train = [("R1",), ("R2",)] * 6 + [("R1", "R2")] * 2
    states = _told_apart(train, 1)
    found = fit_rules({1: states}, train, {1: states}, train, IDS, strengths=(0.5,))
    assert found is not None
    rows = [*range(14), 12, 13]
    order = sorted(range(16), key=lambda place: rows[place])  # the two requests stand twice, at half the weight
    rows = [rows[place] for place in order]
    which = [0, 1] * 6 + [0, 1, 0, 1]
    weight = [1.0] * 12 + [0.5] * 4
    scaled = (states[rows] - states[rows].mean(0)) / states[rows].std(0)
    model = LogisticRegression(C=0.5, max_iter=500).fit(scaled, which, sample_weight=weight)
    got = states[rows] @ found.weights.T + found.biases
    assert got[:, 1] - got[:, 0] == pytest.approx(model.decision_function(scaled), abs=1e-3)


def test_without_rules_there_is_nothing_to_fit_and_one_rule_needs_no_fit() -> None:
    states = _told_apart([()] * 4, 1)
    assert fit_rules({1: states}, [()] * 4, {1: states}, [()] * 4, IDS) is None
    alone = [("R2",)] * 4
    found = fit_rules({1: states}, alone, {1: states}, alone, IDS)
    assert found is not None
    assert (found.rules, found.right_dev) == (("R2",), 1.0)
    assert not found.weights.any()


def test_classes_of_three_are_scikit_learns_on_standardised_states() -> None:
    states = _told_apart(TRAIN[:24], 1)
    classes = np.array([0, 1, 2] * 8)
    weights, biases = fit_classes(states, classes, 0.1)
    scaled = (states - states.mean(0)) / states.std(0)
    model = LogisticRegression(C=0.1, max_iter=500).fit(scaled, classes)
    assert states @ weights.T + biases == pytest.approx(model.decision_function(scaled), abs=1e-4)
