"""What is fitted on states: harm by a logistic output, rules each by one or all by one softmax, and at which layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from forethought.measure.probe import Probe, ProbeSettings
from forethought.measure.probe_fit import (
    RuleFit,
    choose_layer,
    fit_classes,
    fit_each,
    fit_head,
    fit_rules,
    layers_at,
    rule_targets,
)
from forethought.models.hidden_states import States
from forethought.policy import default_policy

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
    return fit_rules(blurred, TRAIN, {1: _told_apart(DEV, 2, noise=5.0), 2: _told_apart(DEV, 2)}, DEV, IDS)


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
    nothing = fit_rules({1: states}, [()] * 4, {1: states}, [()] * 4, IDS)
    assert (nothing.rules, nothing.layer, nothing.weights.shape) == ((), 0, (0, 6))
    alone = [("R2",)] * 4
    found = fit_rules({1: states}, alone, {1: states}, alone, IDS)
    assert (found.rules, found.right_dev) == (("R2",), 1.0)
    assert not found.weights.any()


def test_classes_of_three_are_scikit_learns_on_standardised_states() -> None:
    states = _told_apart(TRAIN[:24], 1)
    classes = np.array([0, 1, 2] * 8)
    weights, biases = fit_classes(states, classes, 0.1)
    scaled = (states - states.mean(0)) / states.std(0)
    model = LogisticRegression(C=0.1, max_iter=500).fit(scaled, classes)
    assert states @ weights.T + biases == pytest.approx(model.decision_function(scaled), abs=1e-4)


def test_a_head_separates_by_hand_made_states_in_their_own_units() -> None:
    states = np.array([[0.0, 500.0], [0.0, 500.0], [1.0, 500.0], [1.0, 500.0]], dtype=np.float32)
    weights, bias = fit_head(states, np.array([False, False, True, True]), 1.0)
    odds = states @ weights + bias
    assert odds[0] == pytest.approx(-odds[2], abs=1e-6)  # balanced and symmetric
    assert odds[2] > 0
    assert weights[1] == pytest.approx(0.0, abs=1e-9)  # a constant tells nothing, and divides by nothing


def test_the_layer_that_separates_unseen_rows_is_chosen_and_a_tie_goes_to_the_lower() -> None:
    harmful = np.array([False, True] * 8)
    signal = np.where(harmful, 1.0, -1.0)[:, None].astype(np.float32)
    noise = np.random.default_rng(0).normal(size=(16, 1)).astype(np.float32)
    area, layer, strength = choose_layer(
        {1: noise, 2: signal, 3: signal}, harmful, {1: noise, 2: signal, 3: signal}, harmful
    )
    assert (area, layer, strength) == (1.0, 2, 0.001)


def test_layers_stand_above_those_that_are_left_alone() -> None:
    assert layers_at(30, depths=(0.5, 0.6)) == (15, 18)
    assert layers_at(30, above=15, depths=(0.5, 0.6)) == (16, 18)
    assert layers_at(2, above=1) == (2,)


def test_unknown_rules_teach_no_rule_and_rare_ones_get_no_head() -> None:
    harmful = np.array([True, True, True, True, False])
    rules, targets = rule_targets(harmful, [("R1",), ("R1", "R2"), ("R1",), (), ()], ["R1", "R2"])
    assert rules == ("R1",)
    assert targets[:, 0].tolist() == [1, 1, 1, 1, 0]
    assert targets[[0, 1, 2, 4], 1].tolist() == [1, 1, 1, 0]
    assert np.isnan(targets[3, 1])
    states = np.array([[1.0], [1.1], [0.9], [-9.0], [-1.0]], dtype=np.float32)
    _, biases = fit_each(states, targets, 1.0)
    assert biases[1] == pytest.approx(
        fit_head(states[[0, 1, 2, 4]], np.array([True, True, True, False]), 1.0)[1], abs=1e-5
    )


def test_rules_that_stand_alone_have_log_odds_and_others_share_a_softmax() -> None:
    settings = ProbeSettings(
        model="m", layer=1, policy=default_policy(), rules=("R4",), each_rule_alone=True, strength=0.1, auroc_dev=0.9,
        rows={"harmful": 3},
    )  # fmt: skip
    states = {1: np.arange(4, dtype=np.float32)[None]}
    weights, biases = np.ones((2, 4), np.float32), np.array([0.5, -0.5], np.float32)
    assert Probe(settings, weights, biases).of_states(states).tolist() == [[6.5, 5.5]]
    together = settings.model_copy(update={"each_rule_alone": False})
    assert Probe(together, weights, biases).of_states(states).tolist() == [[6.5, 0.0]]
