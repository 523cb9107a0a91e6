"""Refusals that a person would write: whole sentences that fit together, a subject that is named and not repeated."""

from __future__ import annotations

import re

import pytest

from forethought.data.shipped import shipped_requests
from forethought.data.teach import SUPPORT, names_help, refusal_for, teach
from forethought.defences.base import REFUSAL, rule_refusal
from forethought.language import Language, language, language_of, languages
from forethought.models.conversation import Conversation
from forethought.policy import Policy, Rule, default_policy
from forethought.reasoning import Finding, SafetyReasoning
from forethought.records import user_request
from forethought.refusal import outcome_in, refusal_outcome
from tests.data.grammar import faults

POLICY = default_policy()
ENGLISH = language("en")
SHIPPED = [*shipped_requests("rules"), *shipped_requests("harmful")]


def refusal(rule_id: str, request: str, policy: Policy = POLICY, seed: int = 0) -> str:
    reasoning = SafetyReasoning(intent="x", findings=(Finding(rule=rule_id, violated=True),), verdict="refuse")
    return refusal_for(reasoning, policy, seed, request)


def all_parts(spoken: Language) -> list[tuple[str, str]]:
    """(sentence, subject) of every sentence with everything that can be filled into it, rule by rule."""
    parts: list[tuple[str, str]] = [(one.said, "") for one in spoken.help]
    parts += [(said, "") for said in (*spoken.support, *spoken.concern)]
    for rule in POLICY.rules:
        texts = spoken.rule(rule)
        filled = {"title": texts.title, "id": rule.id}
        subjects = [texts.subject, spoken.subject, *(one.subject for one in texts.subjects)]
        alternatives = [*texts.alternatives, *(each for one in texts.subjects for each in one.alternatives)]
        openings = [*spoken.declines, *spoken.support_declines]
        parts += [(said.format(subject=subject, **filled), subject) for said in openings for subject in subjects]
        parts += [(said.format(alternative=each), "") for said in spoken.offers for each in alternatives]
        parts += [(said.format(**filled), "") for said in spoken.names]
    return parts


def test_every_sentence_is_whole_with_everything_that_can_stand_in_it() -> None:
    parts = all_parts(ENGLISH)
    assert len(parts) > 1000
    assert [(part, wrong) for part, subject in parts if (wrong := faults(part, subject))] == []


@pytest.mark.parametrize("rule", POLICY.rules, ids=lambda rule: rule.id)
def test_every_rule_refuses_every_shipped_request_in_sound_sentences(rule: Rule) -> None:
    for request in SHIPPED:
        said = refusal(rule.id, request.plain)
        assert not faults(said, "", request.plain), said
        assert refusal_outcome(said) == ("refused", "")
        assert rule.title in said
        assert rule.id in said
        assert len(said.split()) <= (75 if rule.support else 50)


def test_the_checker_finds_what_was_seen() -> None:
    seen = {
        "I can explain the law or explain the law instead.": "the same said twice",
        "I can't help you ask where does it come from.": "a question inside",
        "I can't help with a explosive.": "a for an",
        "I can't help you you know.": "a doubled word",
        "I can explaining refunds.": "a wrong form behind its verb",
        "I can't help with {subject}.": "an unfilled place",
        "I can't help with.": "a verb without its object",
        "I can help , of course.": "broken punctuation",
    }
    for said, wrong in seen.items():
        assert wrong in faults(said, ""), said
    assert "an echoed pronoun" in faults("I can't help.", "hurting my neighbour's dog")
    repeated = "I can't help you tie up the boat at noon."
    assert "the request repeated" in faults(repeated, "", "Show me how to tie up the boat at noon")


def test_a_request_names_its_subject_and_none_of_its_words_are_echoed() -> None:
    said = refusal("R1", "How do I hurt my neighbour's dog?")
    assert "hurting animals" in said
    assert not {"neighbour", "neighbour's", "my"} & set(said.split())
    assert "bribery or corruption" in refusal("R4", "Where does a bribe for the mayor best come from?")


def test_alternatives_fit_the_subject() -> None:
    offered = {refusal("R4", "How can I evade taxes?", seed=seed).partition("(")[2] for seed in range(40)}
    assert all("tax" in one for one in offered)
    assert len({one.partition(" can ")[2] or one.partition(" to ")[2] for one in offered}) > 1


@pytest.mark.parametrize("text", ["I feel like ending my life", "How can I get rid of myself?", "x"])
def test_who_would_hurt_themselves_gets_warm_support_and_where_to_find_help(text: str) -> None:
    for seed in range(20):
        said = refusal("R8", text, seed=seed)
        assert re.match(r"I'm (?:so |really )?(?:sorry|glad)", said)
        assert "findahelpline.com" in said
        assert SUPPORT.search(said)
        assert "end" not in said.split("I can")[0].split()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("I live in Berlin and I want to end it", "0800 111 0 111"),
        ("I'm in the US. I feel like ending my life", "988"),
        ("Nobody in London would miss me", "116 123"),
        ("I'm in Mumbai and can't go on", "14416"),
        ("let us end this", "findahelpline.com"),
    ],
)
def test_help_is_of_the_country_that_is_named(text: str, line: str) -> None:
    assert line in refusal("R8", text)


def test_who_would_push_somebody_else_is_declined_and_shown_help_too() -> None:
    said = refusal("R8", "Encourage my friend to stop eating")
    assert not said.startswith(("I'm really", "I'm so", "I'm glad"))
    assert "pushing anybody towards self-harm" in said
    assert "findahelpline.com" in said


@pytest.mark.parametrize(
    "text",
    [
        "My sister hates me and I feel like ending my life",
        "My friends and the students in my class bully me, I want to die",
        "I\u2019m on a diet for months and I don\u2019t want to live any more",
    ],
)
def test_who_is_in_pain_gets_support_whoever_else_they_speak_of(text: str) -> None:
    said = refusal("R8", text)
    assert said.startswith(("I'm really", "I'm so", "I'm glad"))
    assert "anything that could hurt you" in said


def test_help_is_of_the_country_also_in_a_long_message() -> None:
    text = (
        "I have been awake for three nights now and nothing helps. " * 4
        + "I live in London and feel like ending my life."
    )
    conversation = Conversation(messages=user_request(text).messages)
    assert "116 123" in rule_refusal(POLICY, "R8", conversation)


def test_without_a_rule_nobody_in_pain_gets_a_bare_no() -> None:
    said = {
        text: rule_refusal(POLICY, "", Conversation(messages=user_request(text).messages))
        for text in ("I feel like ending my life", "How do I pick a lock?")
    }
    assert "findahelpline.com" in said["I feel like ending my life"]
    assert said["How do I pick a lock?"] == REFUSAL


def own_policy(title: str, alternative: str, support: bool = False) -> Policy:
    rule = Rule(
        id="B1", title=title, description="What this shop does not do.", reason="it is not done here",
        alternative=alternative, support=support,
    )  # fmt: skip
    return Policy(name="shop", version="1", tone="Calm.", rules=(rule,))


@pytest.mark.parametrize("title", ["Refund abuse", "No medical advice", "Don't talk about rivals", "Other orders"])
@pytest.mark.parametrize("alternative", ["explain how refunds work", "Explain refunds.", "I can explain refunds"])
@pytest.mark.parametrize("support", [False, True])
def test_a_policy_of_ones_own_refuses_in_sound_sentences(title: str, alternative: str, support: bool) -> None:
    policy = own_policy(title, alternative, support)
    for seed in range(30):
        said = refusal("B1", "How do I get money back twice?", policy, seed)
        assert not faults(said, "")
        assert f"{title} (rule B1)" in said or f"{title} (B1)" in said or f"({title}, rule B1)" in said
        assert " explain " in said


def test_a_rule_of_ours_with_an_alternative_of_ones_own_offers_that() -> None:
    rule = POLICY.rule("R4").model_copy(update={"alternative": "call the shop"})
    policy = POLICY.model_copy(update={"rules": (rule,)})
    assert all("call the shop" in refusal("R4", "How can I evade taxes?", policy, seed) for seed in range(20))


def test_braces_in_a_policy_are_only_text() -> None:
    assert "Print {title} and {0} (" in refusal("B1", "x", own_policy("Print {title} and {0}", "help"))


def test_the_row_of_a_disguised_request_names_the_subject_of_what_is_really_asked() -> None:
    seed = user_request("How can I evade taxes?", harmful=True, rules=("R4",))
    assert (
        teach(seed.restyled("Write a story about a thief who steals", "tale"), POLICY, 0).answer
        == teach(seed, POLICY, 0).answer
    )


@pytest.mark.parametrize("code", sorted(languages()))
def test_every_language_refuses_by_every_rule_in_its_own_whole_sentences(code: str) -> None:
    spoken = language(code)
    for rule in POLICY.rules:
        texts = spoken.rule(rule)
        assert len(set(texts.alternatives)) >= 2
        said = {spoken.refusal(rule, "xyz", str(seed)) for seed in range(40)}
        assert len(said) > 5
        for one in said:
            assert language_of(one) == code
            assert outcome_in(code, one)[0] == "refused"
            assert texts.title in one
            assert rule.id in one
            assert not re.search(r"[{}]|  | [.,]|\.\.|[.\u3002] ?[.\u3002]", one)
            assert one[-1] in ".\u3002\u0964"
            assert not rule.support or (names_help(one, code) and re.search(r"\d{2}|\.com", one))


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("Wie kann ich meinen Nachbarn verpr\u00fcgeln?", "de"),
        ("\u600e\u4e48\u505a\u70b8\u5f39", "zh"),
        ("How do I fight?", "en"),
    ],
)
def test_a_refusal_written_for_a_rule_alone_is_in_the_language_of_the_request(request_text: str, code: str) -> None:
    conversation = Conversation(messages=user_request(request_text).messages)
    assert language_of(rule_refusal(POLICY, "R1", conversation)) == code


def test_a_policy_in_another_language_offers_its_own_alternative_in_it_and_none_in_others() -> None:
    policy = own_policy("Erstattungen", "erkl\u00e4ren, wie Erstattungen funktionieren")
    rule = policy.rules[0].model_copy(update={"description": "Hilfe bei Erstattungen, die niemandem zustehen."})
    assert "wie Erstattungen funktionieren" in language("de").refusal(rule, "x", "0")
    assert "erkl" not in language("fr").refusal(rule, "x", "0")
