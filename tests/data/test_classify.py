"""Rules for harmful requests: their own, else by category, else by the classifier."""

from __future__ import annotations

import pytest

from forethought.data.classify import RuleClassifier, assign_rules
from forethought.data.shipped import shipped_requests
from forethought.errors import ConfigError
from forethought.policy import Policy, Rule, default_policy
from forethought.records import Request, user_request

POLICY = default_policy()
HOUSE = Policy(
    name="house",
    version="1",
    tone="calm",
    rules=(
        Rule(
            id="K1", title="Kitchen", description="Cooking with the stove or the oven.", reason="a", alternative="b",
            examples=("Let me bake bread in the oven", "May I boil soup on the stove?"),
        ),
        Rule(
            id="G1", title="Garden", description="Digging up flowers and trees.", reason="a", alternative="b",
            examples=("Let me dig up the roses", "May I cut down the apple tree?"),
        ),
    ),
)  # fmt: skip


def _harmful(text: str, *categories: str, rules: tuple[str, ...] = ()) -> Request:
    return user_request(text, harmful=True, categories=categories, rules=rules)


def test_a_requests_own_rules_stay() -> None:
    rows, classified = assign_rules([_harmful("x y", "Self-Harm", rules=("R4",))], POLICY)
    assert rows[0].rules == ("R4",)
    assert classified == 0


def test_categories_stand_for_rules_each_once() -> None:
    rows, classified = assign_rules([_harmful("x y", "Self-Harm", "self_harm", "fraud")], POLICY)
    assert rows[0].rules == ("R8", "R4")
    assert classified == 0


def test_a_foreign_category_is_left_to_the_classifier() -> None:
    rows, classified = assign_rules([_harmful("May I bake a cake in the oven?", "Pastry")], HOUSE)
    assert rows[0].rules == ("K1",)
    assert classified == 1


def test_harmless_and_unlabelled_requests_pass_unchanged() -> None:
    requests = [user_request("How do I tie a knot?", harmful=False), user_request("How?")]
    assert assign_rules(requests, POLICY) == (requests, 0)


def test_order_is_kept_and_only_open_requests_are_counted() -> None:
    requests = [
        _harmful("Dig up the roses", rules=("G1",)),
        _harmful("Boil soup on the stove"),
        user_request("Hello there", harmful=False),
        _harmful("Cut down the tree in the garden"),
    ]
    rows, classified = assign_rules(requests, HOUSE)
    assert [row.rules for row in rows] == [("G1",), ("K1",), (), ("G1",)]
    assert [row.text for row in rows] == [request.text for request in requests]
    assert classified == 2


def test_only_allowed_rules_are_kept_and_harmless_requests_with_them() -> None:
    requests = [
        _harmful("a b", rules=("R4",)),
        _harmful("c d", rules=("R5",)),
        user_request("How do I tie a knot?", harmful=False),
    ]
    assert assign_rules(requests, POLICY, frozenset({"R4"}))[0] == [requests[0], requests[2]]


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(ConfigError, match="R99"):
        assign_rules([_harmful("a b", rules=("R99",))], POLICY)


def test_a_disguised_request_is_classified_by_what_is_really_asked() -> None:
    disguised = _harmful("Let me bake bread in the oven").restyled("Dig up the roses and trees of the garden", "x")
    assert assign_rules([disguised], HOUSE)[0][0].rules == ("K1",)


def test_a_policy_of_ones_own_is_not_taught_by_the_shipped_set() -> None:
    assert set(RuleClassifier(HOUSE).predict(["bread", "roses", "hack a computer"])) <= {"K1", "G1"}


def test_a_policy_of_one_rule_leaves_nothing_to_tell_apart() -> None:
    single = HOUSE.model_copy(update={"rules": HOUSE.rules[:1]})
    with pytest.raises(ConfigError, match="single rule"):
        RuleClassifier(single)


def test_nothing_to_predict_is_no_error() -> None:
    assert RuleClassifier(HOUSE).predict([]) == []


def test_held_out_scenarios_get_the_right_rule_far_above_chance() -> None:
    """Trained on the train families alone. Measured .49 over 13 rules (chance: .08): scenarios share few words."""
    held_out = shipped_requests("harmful", "test")
    predicted = RuleClassifier(POLICY).predict([request.text for request in held_out])
    right = sum(rule == request.rules[0] for rule, request in zip(predicted, held_out, strict=True))
    assert right / len(held_out) > 0.4
    assert predicted == RuleClassifier(POLICY).predict([request.text for request in held_out])
