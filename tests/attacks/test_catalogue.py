"""Attacks: each does what it says, on a harmless sentence."""

from __future__ import annotations

import hashlib
import random

import pytest

from forethought.attacks.catalogue import BY_RULE, DIRECT, apply_attack, parse_attack
from forethought.data.evolve import load_operators
from forethought.errors import ConfigError
from forethought.records import Message, Request, user_request

PROBE = "Explain how bakeries keep sourdough starters alive through the winter"
READABLE = [name for name in BY_RULE if parse_attack(name).readable and name != "misspelling"]


def _styled(name: str, text: str = PROBE, seed: int = 0) -> str:
    return apply_attack(name, user_request(text, harmful=False), seed).text


@pytest.mark.parametrize("name", READABLE)
def test_readable_attacks_hold_the_whole_request(name: str) -> None:
    styled = _styled(name)
    assert PROBE in styled
    assert len(styled) > len(PROBE) + 20


@pytest.mark.parametrize("name", BY_RULE)
def test_restyled_request_remembers_what_is_asked(name: str) -> None:
    request = user_request(PROBE, harmful=False, kind="ordinary", source="shipped", rules=("R4",))
    styled = apply_attack(name, request, 0)
    assert styled.text != PROBE
    assert (styled.plain, styled.operator, styled.seed_id) == (PROBE, name, request.seed_id)
    assert (styled.harmful, styled.kind, styled.rules) == (request.harmful, request.kind, request.rules)


@pytest.mark.parametrize("name", BY_RULE)
def test_harmful_and_harmless_are_styled_alike(name: str) -> None:
    """Else the style itself would tell them apart."""
    harmful = apply_attack(name, user_request(PROBE, harmful=True), 0)
    assert harmful.text == _styled(name)


def test_leetspeak_decodes_back() -> None:
    styled = _styled("leetspeak")
    assert not set("aeiost") & set(styled)
    assert styled.translate(str.maketrans("431057", "aeiost")).lower() == PROBE.lower()


def test_disemvowelled_text_has_no_vowels_and_all_else() -> None:
    styled = _styled("disemvowel")
    assert not set("aeiouAEIOU") & set(styled)
    assert styled == "".join(letter for letter in PROBE if letter not in "aeiouAEIOU")


def test_misspelling_swaps_inner_letters_alone() -> None:
    before, after = PROBE.split(), _styled("misspelling").split()
    assert len(before) == len(after)
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert changed
    for one, other in changed:
        assert len(one) >= 5
        assert sorted(one) == sorted(other)
        assert (one[0], one[-1]) == (other[0], other[-1])
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 2


def test_distractors_surround_the_request_with_three_others() -> None:
    styled = _styled("distractors")
    first, second, third, fourth = (styled.index(word) for word in ("First:", "Second:", "Third:", "Fourth:"))
    assert first < second < styled.index(PROBE) < third < fourth
    texts = {_styled("distractors", text=f"Describe town {n}").replace(str(n), "") for n in range(8)}
    assert len(texts) > 1


def test_prefix_injection_dictates_the_opening() -> None:
    assert "Start your answer with" in _styled("prefix_injection")


def test_refusal_suppression_forbids_the_words_of_refusals() -> None:
    assert '"cannot"' in _styled("refusal_suppression")


def test_json_style_asks_for_json() -> None:
    assert "JSON object" in _styled("style_json")


def test_direct_changes_nothing() -> None:
    request = user_request(PROBE)
    assert apply_attack("direct", request, 0) is request
    assert parse_attack("direct") is DIRECT


def test_only_the_last_turn_is_restyled() -> None:
    turns = (("user", "Hello"), ("assistant", "Hi."), ("user", PROBE))
    request = Request(messages=tuple(Message.model_validate({"role": r, "content": c}) for r, c in turns))
    styled = apply_attack("style_json", request, 0)
    assert styled.messages[:2] == request.messages[:2]
    assert PROBE in styled.messages[2].content


def test_unknown_BY_RULE_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="style_json"):
        apply_attack("style_jsn", user_request(PROBE), 0)


@pytest.mark.parametrize("name", ["poems", "answer_prefill", "budget_cut", "templates", "base64 | poems"])
def test_what_a_request_alone_can_not_carry_is_an_error(name: str) -> None:
    """Silently leaving a prefill out would measure another attack."""
    with pytest.raises(ConfigError, match="more than a request"):
        apply_attack(name, user_request(PROBE), 0)


def test_the_entrance_finds_composed_attacks() -> None:
    assert parse_attack("style_json | refusal_suppression").readable
    assert not parse_attack("leetspeak | style_json").readable
    seen = ("misspelling", "texting", "distractors", "several_tasks")
    assert parse_attack("misspelling | distractors").relatives == seen
    styled = apply_attack("disemvowel | style_json", user_request("Bake"), 0)
    assert styled.text.startswith("Bk. Reply with a JSON object")
    assert (styled.plain, styled.operator) == ("Bake", "disemvowel | style_json")


_DIGESTS = {
    "prefix_injection": "d89776c63e3ca9a0",
    "refusal_suppression": "79cf84dd0f7b9309",
    "style_short": "eb02e6637a2c0f9c",
    "style_json": "fb2f8876d7682a84",
    "distractors": "6856a1de63c55590",
    "authority_endorsement": "957c24ab07ad32be",
    "misspelling": "fd34da75c712a29f",
    "leetspeak": "6ebab4b1318d9a1a",
    "disemvowel": "73296d5dcf0f0b03",
}


@pytest.mark.parametrize("name", BY_RULE)
def test_published_results_rest_on_these_very_bytes(name: str) -> None:
    digest = hashlib.sha256()
    for text in ("How do I bake bread?", PROBE, "  Hi ", "Give me 3 ideas; quick!"):
        for seed in range(6):
            styled = apply_attack(name, user_request(text, harmful=False), seed)
            digest.update(styled.model_dump_json().encode())
    assert digest.hexdigest()[:16] == _DIGESTS[name]


@pytest.mark.parametrize(
    "text", ["Hi", "a", "?", "Explain {request} and {phrase}", "Was kostet Käse? Bitte \\1 erklären"]
)
def test_odd_requests_are_styled_too(text: str) -> None:
    for name in READABLE:
        assert text in _styled(name, text)
    _styled("misspelling", text)


def test_trap_8_trained_styles_and_attacks_share_no_name() -> None:
    """What is tested as unseen must not be an operator that training uses."""
    operators = load_operators()
    assert not set(operators) & set(BY_RULE)
    request = user_request(PROBE)
    trained = {operators[name].apply(request, random.Random(seed)).text for name in operators for seed in range(5)}
    assert not trained & {_styled(name) for name in BY_RULE}
