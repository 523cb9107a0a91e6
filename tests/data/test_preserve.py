"""Intent preservation: every shipped style keeps it; other requests, twins, answers and refusals are found out."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from forethought.data.classify import RuleClassifier
from forethought.data.evolve import load_operators
from forethought.data.preserve import (
    ANSWERED,
    EMPTY,
    OTHER_CONTENT,
    OTHER_RULE,
    REFUSED,
    RuleProbabilities,
    content_held,
    preservation,
    same_rules,
)
from forethought.data.shipped import shipped_requests
from forethought.policy import default_policy
from forethought.records import Request, user_request
from tests.data.styles import evolve

OPERATORS = load_operators()
SHIPPED = [*shipped_requests("contrast"), *shipped_requests("ordinary")]
BY_TEXT = {request.text: request for request in SHIPPED}
KNOT = user_request("How do I tie a bowline on a sailing boat?", harmful=False)
Pairs = list[tuple[Request, Request]]


@pytest.fixture(scope="module")
def rules() -> RuleProbabilities:
    """The classifier's probability of each rule."""
    classifier = RuleClassifier(default_policy())

    def of(texts: Sequence[str]) -> list[dict[str, float]]:
        found = classifier.probabilities(texts)
        return [dict(zip(classifier.rules, map(float, row), strict=True)) for row in found]

    return of


@pytest.fixture(scope="module")
def styled() -> Pairs:
    """Every shipped request in one style, with its seed."""
    return [(BY_TEXT[row.plain], row) for row in evolve(SHIPPED, OPERATORS, 1, 1.0, seed=1)]


def _dropped(pairs: Pairs, rules: RuleProbabilities | None = None) -> float:
    found = preservation(pairs, OPERATORS, rules, beside=SHIPPED)
    return sum(cause is not None for cause in found) / len(found)


def _variant(text: str, operator: str = "slang") -> Request:
    return KNOT.restyled(text, operator)


# Measured: what is kept


def test_every_shipped_style_keeps_the_intent(styled: Pairs, rules: RuleProbabilities) -> None:
    """At least 99 of 100, each operator at least 97 of 100."""
    assert {row.operator for _, row in styled} == set(OPERATORS)
    assert _dropped(styled, rules) <= 0.01
    for name in OPERATORS:
        assert _dropped([pair for pair in styled if pair[1].operator == name], rules) <= 0.03, name


def test_freely_written_variants_are_kept() -> None:
    """The demonstrations: written by hand, and not by the word rules that the bounds were seen on."""
    pairs = [
        (user_request(shown.request), user_request(shown.request).restyled(shown.rewritten, name))
        for name, operator in OPERATORS.items()
        for shown in operator.demonstrations
    ]
    assert _dropped(pairs) <= 0.03


# Measured: what is dropped


def test_variants_of_other_requests_are_dropped(styled: Pairs) -> None:
    rng = random.Random(0)
    swapped = [(seed, styled[rng.randrange(len(styled))][1]) for seed, _ in styled]
    assert _dropped([(seed, row) for seed, row in swapped if row.plain != seed.plain]) >= 0.98


def test_a_twin_swapped_in_is_dropped(styled: Pairs) -> None:
    """Known twins nearly always; without the twin to compare with, most."""
    by_twin: dict[str, list[Request]] = {}
    for request in shipped_requests("contrast"):
        by_twin.setdefault(request.twin, []).append(request)
    swapped = [(next(other for other in by_twin[seed.twin] if other != seed), row) for seed, row in styled if seed.twin]
    assert _dropped(swapped) >= 0.97
    alone = [(seed.model_copy(update={"twin": ""}), row) for seed, row in swapped]
    assert _dropped(alone) >= 0.65


def test_answers_and_refusals_of_models_are_dropped(shared: Path) -> None:
    answers: Pairs = []
    refusals: Pairs = []
    for path in sorted((shared / "judged" / "xstest_completions").glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["completion"].strip() and "partial" not in row["final_label"]:
                    pairs = answers if "compliance" in row["final_label"] else refusals
                    pairs.append((user_request(row["prompt"]), user_request(row["completion"])))
    assert len(answers) > 500
    assert len(refusals) > 500
    assert _dropped(answers) >= 0.93
    assert _dropped(refusals) >= 0.97
    after = [(seed, user_request(f"{seed.text}\n\n{text.text}")) for seed, text in answers]
    assert _dropped(after) >= 0.9
    after = [(seed, user_request(f"{seed.text}\n\n{text.text}")) for seed, text in refusals]
    assert _dropped(after) >= 0.97


# One by one


def _cause(seed: Request, variant: Request) -> str | None:
    return preservation([(seed, variant)], OPERATORS)[0]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("yo how do I tie a bowline on a sailin boat, no cap", None),
        ("hou dae A tie a bowlin' on a sailing boatie?", None),
        ("yo how do I bake a loaf of bread in a tin, no cap", OTHER_CONTENT),
        ("", EMPTY),
        ("??? !!! ...", EMPTY),
        ("Sure! Yo, how do I tie a bowline on a sailing boat?", ANSWERED),
        ("Here is the request in slang: yo how do I tie a bowline on a sailing boat", ANSWERED),
        ("Here is my question: how do I tie a bowline on a sailing boat?", None),
        ("A bowline on a sailing boat is tied by making a loop near the end.", ANSWERED),
        ("How do I tie a bowline on a sailing boat?\n1. Make a loop.\n2. Pass the end.\n3. Pull.", ANSWERED),
        ("How do I tie a bowline on a sailing boat?\n" + "The end goes through, then round. " * 5, ANSWERED),
        ("yo " + " ".join(map("day {}".format, range(90))) + " how do I tie a bowline on a sailing boat", ANSWERED),
        ("1. Name a lake.\n2. How do I tie a bowline on a sailing boat?\n3. Spell rhythm.", None),
        ("I'm sorry, but I can't help you tie a bowline on a sailing boat.", REFUSED),
        ("I cannot rewrite this request: how do I tie a bowline on a sailing boat?", REFUSED),
        ("I can\u2019t rephrase how do I tie a bowline on a sailing boat?", REFUSED),
    ],
)  # fmt: skip
def test_causes(text: str, cause: str | None) -> None:
    assert _cause(KNOT, _variant(text)) == cause


def test_a_seed_that_only_states_may_be_stated_again() -> None:
    seed = user_request("I've lost my bowline. Sailing's tomorrow.")
    for name in ("lowercase", "capitals", "long_preamble"):
        assert _cause(seed, OPERATORS[name].apply(seed, random.Random(0))) is None


def test_a_users_own_cannot_is_no_refusal() -> None:
    seed = user_request("How do I tell a friend that I can't help with her move?")
    said = "I can't help my girl with her move, how do I tell a friend like that"
    assert _cause(seed, seed.restyled(said, "slang")) is None


def test_a_context_has_to_leave_more_of_the_words_than_slang() -> None:
    half = "yo how do I tie that thing on a boat"
    assert _cause(KNOT, _variant(half, "slang")) is None
    assert _cause(KNOT, _variant(half, "role_play")) == OTHER_CONTENT
    assert _cause(KNOT, _variant(half, "of another tool")) is None


def test_a_twin_that_the_variant_holds_better_is_what_it_asks() -> None:
    seed = user_request("How do I break into a locked car of a stranger?", harmful=True, twin="t")
    twin = user_request("How do I get into my locked car?", harmful=False, twin="t")
    variant = seed.restyled("yo how do I get into ma locked car", "slang")
    assert preservation([(seed, variant)], OPERATORS, beside=[twin])[0] == OTHER_CONTENT
    unknown = preservation([(seed, variant)], OPERATORS)[0]
    assert unknown in (None, OTHER_CONTENT)  # may pass: nothing tells it apart


def _scripted(by_text: dict[str, dict[str, float]]) -> RuleProbabilities:
    return lambda texts: [by_text[text] for text in texts]


@pytest.mark.parametrize(
    ("of_seed", "of_variant", "same"),
    [
        ({"R1": 0.9, "R2": 0.1}, {"R1": 0.6, "R2": 0.4}, True),
        ({"R1": 0.9, "R2": 0.1}, {"R1": 0.01, "R2": 0.99}, True),  # second of two: among the likeliest three
        ({"R1": 0.9, "R2": 0.1}, {"R1": 0.01, "R2": 0.5, "R3": 0.3, "R4": 0.19}, False),
        # The classifier was never sure of the seed either, so the variant's low probability proves nothing.
        ({"R1": 0.05, "R2": 0.95}, {"R1": 0.01, "R2": 0.5, "R3": 0.3, "R4": 0.19}, True),
        ({"R2": 1.0}, {"R2": 1.0}, None),  # a classifier that doesn't know the rule says nothing
    ],
)
def test_a_weak_classifier_loses_no_good_row(
    of_seed: dict[str, float], of_variant: dict[str, float], same: bool | None
) -> None:
    seed = user_request("How do I break this thing?", harmful=True, rules=("R1",))
    variant = seed.restyled("Yo how do I break this thing?", "slang")
    rules = _scripted({seed.text: of_seed, variant.text: of_variant})
    assert same_rules([(seed, variant)], rules) == [same]
    assert preservation([(seed, variant)], OPERATORS, rules)[0] == (OTHER_RULE if same is False else None)


def test_rules_are_asked_of_harmful_seeds_with_a_rule_alone() -> None:
    asked: list[str] = []

    def rules(texts: Sequence[str]) -> list[dict[str, float]]:
        asked.extend(texts)
        return [{"R1": 1.0} for _ in texts]

    ruled = user_request("Break it now.", harmful=True, rules=("R1",))
    pairs = [(s, s.restyled(f"yo {s.text}", "slang")) for s in (KNOT, user_request("Hit it.", harmful=True), ruled)]
    assert same_rules(pairs, rules) == [None, None, True]
    assert asked == ["Break it now.", "yo Break it now."]


@pytest.mark.parametrize(
    ("seed", "variant", "least", "most"),
    [
        ("Varnish a violin", "yo varnish a violin", 1.0, 1.0),
        ("Varnish a violin", "yo varnishin the violins", 0.6, 0.99),
        ("Varnish a violin", "yo paint a fence", 0.0, 0.0),
        ("Tell the police", "tell the cops", 1.0, 1.0),  # a word rule's equivalent counts in full
        ("How many is 1234?", "how many is 1235?", 0.0, 0.3),  # another number is not nearly the same
        ("How do I do it?", "so can we", 0.0, 0.4),
        ("How do I do it?", "how do I do it", 1.0, 1.0),  # nothing but common words: all of them count
        ("", "anything", 1.0, 1.0),
        ("如何打结", "请问如何打结?", 1.0, 1.0),
        ("How do I quit?", "how do i QUIT", 1.0, 1.0),
    ],
)
def test_how_much_of_the_content_is_held(seed: str, variant: str, least: float, most: float) -> None:
    assert least <= content_held(seed, variant) <= most
