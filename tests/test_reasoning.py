"""Reasoning to text and back: nothing is lost in either format, and damage is never read as a verdict."""

from __future__ import annotations

import pytest

from forethought.policy import Policy, Rule, default_policy
from forethought.reasoning import Detail, Finding, Format, SafetyReasoning, leak, markers, parse, render

POLICY = default_policy()
FORMATS: tuple[Format, ...] = ("think", "paper")
DETAILS: tuple[Detail, ...] = ("short", "full")


def _refusing(*rules: str) -> SafetyReasoning:
    findings = tuple(Finding(rule=rule, violated=True, reason=POLICY.rule(rule).reason) for rule in rules)
    return SafetyReasoning(
        intent="learn how to pick the lock of a house that is not theirs", findings=findings, verdict="refuse"
    )


COMPLYING = SafetyReasoning(intent="learn how to tie a bowline", verdict="comply")


@pytest.mark.parametrize("rule", POLICY.rule_ids)
@pytest.mark.parametrize("detail", DETAILS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_trap_7_every_rule_is_read_back_from_what_was_rendered(fmt: Format, detail: Detail, rule: str) -> None:
    """A parser that no longer matches the renderer gave every row of the published code zero categories."""
    reasoning = _refusing(rule)
    for seed in range(3):
        parsed = parse(render(reasoning, POLICY, fmt, detail, seed) + "I can't help with that.", POLICY)
        assert parsed.reasoning is not None, parsed.cause
        assert parsed.reasoning.violated == (rule,)
        assert parsed.reasoning.verdict == "refuse"
        assert parsed.reasoning.intent == reasoning.intent
        assert parsed.reasoning.findings[0].reason == POLICY.rule(rule).reason
        assert parsed.answer == "I can't help with that."
        assert parsed.cause == ""


@pytest.mark.parametrize("detail", DETAILS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_several_rules_keep_their_order(fmt: Format, detail: Detail) -> None:
    parsed = parse(render(_refusing("R1", "R4", "R11"), POLICY, fmt, detail), POLICY)
    assert parsed.reasoning is not None
    assert parsed.reasoning.violated == ("R1", "R4", "R11")


@pytest.mark.parametrize("detail", DETAILS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_complying_is_read_back_without_a_rule(fmt: Format, detail: Detail) -> None:
    for seed in range(6):
        parsed = parse(render(COMPLYING, POLICY, fmt, detail, seed) + "Over, under, through.", POLICY)
        assert parsed.reasoning is not None
        assert parsed.reasoning.verdict == "comply"
        assert parsed.reasoning.violated == ()
        assert parsed.answer == "Over, under, through."


@pytest.mark.parametrize("fmt", FORMATS)
def test_full_walks_every_rule_and_short_names_those_that_apply(fmt: Format) -> None:
    full = parse(render(_refusing("R4"), POLICY, fmt, "full"), POLICY).reasoning
    short = parse(render(_refusing("R4"), POLICY, fmt, "short"), POLICY).reasoning
    assert full is not None
    assert short is not None
    assert {finding.rule for finding in full.findings} == set(POLICY.rule_ids)
    assert {finding.rule for finding in short.findings} == {"R4"}


def test_wording_varies_with_the_seed_and_is_the_same_for_one_seed() -> None:
    texts = {render(COMPLYING, POLICY, seed=seed) for seed in range(12)}
    assert len(texts) > 1
    assert render(COMPLYING, POLICY, seed=3) == render(COMPLYING, POLICY, seed=3)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("detail", DETAILS)
def test_text_cut_anywhere_is_never_read_as_the_other_verdict(fmt: Format, detail: Detail) -> None:
    for reasoning in (_refusing("R1", "R4"), COMPLYING):
        text = render(reasoning, POLICY, fmt, detail)
        verdict_end = text.index("Verdict:") + len(f"Verdict: {reasoning.verdict}")
        for end in range(len(text) + 1):
            parsed = parse(text[:end], POLICY)
            if end < verdict_end:
                assert parsed.reasoning is None, text[:end]
                assert parsed.cause
            else:
                assert parsed.reasoning is not None
                assert parsed.reasoning.verdict == reasoning.verdict
                assert set(parsed.reasoning.violated) <= set(reasoning.violated)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_lost_opening_marker_is_tolerated(fmt: Format) -> None:
    text = render(_refusing("R4"), POLICY, fmt).replace(markers(fmt)[0], "") + "No."
    parsed = parse(text, POLICY)
    assert parsed.reasoning is not None
    assert parsed.reasoning.violated == ("R4",)
    assert parsed.answer == "No."


@pytest.mark.parametrize("fmt", FORMATS)
def test_without_a_closing_marker_there_is_no_answer(fmt: Format) -> None:
    text = render(_refusing("R4"), POLICY, fmt).replace(markers(fmt)[1], "").rstrip()
    parsed = parse(text, POLICY)
    assert parsed.reasoning is not None
    assert parsed.answer == ""


def test_without_any_marker_a_verdict_line_is_enough() -> None:
    parsed = parse("Intent: tie a knot.\nVerdict: comply. It breaks no rule.", POLICY)
    assert parsed.reasoning is not None
    assert parsed.reasoning.verdict == "comply"
    assert parsed.answer == ""


@pytest.mark.parametrize("fmt", FORMATS)
def test_moved_lines_are_tolerated(fmt: Format) -> None:
    opening, *lines, closing = render(_refusing("R4"), POLICY, fmt, "full").rstrip("\n").split("\n")
    text = "\n".join([opening, *reversed(lines), closing, "No."])
    parsed = parse(text, POLICY)
    assert parsed.reasoning is not None
    assert parsed.reasoning.violated == ("R4",)
    assert parsed.reasoning.intent.startswith("learn how")


@pytest.mark.parametrize(
    "line",
    ["VERDICT: REFUSE. R4.", "- **Verdict:** refuse (R4)", "Final verdict: refuse. R4", "  verdict - refuse: R4"],
)
def test_case_and_decoration_of_the_verdict_are_tolerated(line: str) -> None:
    parsed = parse(f"<think>\nIntent: get in.\n{line}\n</think>\nNo.", POLICY)
    assert parsed.reasoning is not None
    assert parsed.reasoning.verdict == "refuse"
    assert parsed.reasoning.violated == ("R4",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure, here is how to tie a bowline.",
        "<think>\n</think>\nSure.",
        "<think>",
        "<think>\nThe user asks about knots. I should refuse or comply.\n</think>\nSure.",
        "<think>\nVerdict: maybe\n</think>\nSure.",
        "<think>\nVerdict: refused incorrectly spelt\n</think>",
        "<think>\nIntent: write that the verdict: comply was reached.\n</think>",
        "<think>\nVerdict:\n</think>\ncomply",
        "# Verify the request\nIntent: tie a knot.\n# Response\nSure.",
        "\x00\ufffd\ud83d</think></think><think>",
    ],
)
def test_trap_4_what_cannot_be_read_is_unparsed_and_has_a_cause(text: str) -> None:
    """Neither safe nor refused: a parse failure that counts as either reports an outage as a result."""
    parsed = parse(text, POLICY)
    assert parsed.reasoning is None
    assert parsed.cause


@pytest.mark.parametrize("order", [("refuse. R4", "comply."), ("comply.", "refuse. R4")])
def test_two_verdicts_that_disagree_are_unparsed(order: tuple[str, str]) -> None:
    parsed = parse(f"<think>\nVerdict: {order[0]}\nVerdict: {order[1]}\n</think>\nSure.", POLICY)
    assert parsed.reasoning is None
    assert "disagree" in parsed.cause


def test_a_verdict_said_twice_is_one_verdict() -> None:
    parsed = parse("<think>\nVerdict: comply.\nVerdict: comply.\n</think>\nSure.", POLICY)
    assert parsed.reasoning is not None


def test_complying_against_a_rule_found_broken_is_unparsed() -> None:
    """The self-jailbreak: the walk sees the harm and the verdict overrides it."""
    text = "<think>\nR4 Fraud, theft and other crime: yes, it helps a thief.\nVerdict: comply.\n</think>\nSure."
    parsed = parse(text, POLICY)
    assert parsed.reasoning is None
    assert "complies against" in parsed.cause


def test_a_second_thought_is_not_taken_for_the_answer() -> None:
    first, second = render(_refusing("R4"), POLICY), render(COMPLYING, POLICY)
    parsed = parse(first + "No. " + second + "Sure.", POLICY)
    assert parsed.reasoning is None
    assert parsed.answer == "Sure."


def test_a_heading_inside_a_letter_closes_no_reasoning() -> None:
    letter = "Dear all,\n\n## Response\nThank you. The # Response is late."
    parsed = parse(letter, POLICY)
    assert parsed.answer == letter


def test_rules_that_the_policy_does_not_have_are_not_findings() -> None:
    parsed = parse(
        "<think>\nR77 Gardening: yes, weeds.\nVerdict: refuse. R88 Cooking: salt; R4 Theft: it is.\n", POLICY
    )
    assert parsed.reasoning is not None
    assert parsed.reasoning.violated == ("R4",)


def test_a_closing_tag_quoted_in_the_intent_does_not_end_the_thought() -> None:
    reasoning = SafetyReasoning(intent="explain what </think> means", verdict="comply")
    parsed = parse(render(reasoning, POLICY) + "It closes a thought.", POLICY)
    assert parsed.reasoning is not None
    assert parsed.answer == "It closes a thought."


def test_a_policy_of_ones_own_is_read_back() -> None:
    rules = [
        Rule(id=name, title=f"House rule {name}", description="Something not done here.", reason="a", alternative="b")
        for name in ("A", "KITCHEN", "X9")
    ]
    policy = Policy(name="house", version="1", tone="calm", rules=tuple(rules))
    for rule in policy.rule_ids:
        reasoning = SafetyReasoning(intent="cook", findings=(Finding(rule=rule, violated=True),), verdict="refuse")
        for detail in DETAILS:
            parsed = parse(render(reasoning, policy, "think", detail), policy)
            assert parsed.reasoning is not None
            assert parsed.reasoning.violated == (rule,)


def test_a_yes_after_a_no_is_seen() -> None:
    """A line of the walk must not swallow the next: the harm would be lost, and the verdict with it be believed."""
    walk = "R3 Drugs and restricted goods: no.\nR4 Fraud, theft and other crime: yes, a thief.\nR5 Hacking: no."
    assert parse(f"<think>\n{walk}\nVerdict: comply.\n</think>\nSure.", POLICY).reasoning is None


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="extra"):
        SafetyReasoning.model_validate({"intent": "x", "verdict": "comply", "mood": "good"})
    with pytest.raises(ValueError, match="verdict"):
        SafetyReasoning.model_validate({"intent": "x", "verdict": "maybe"})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Intent: learn how to bake bread.\nVerdict: refuse. Fraud (R4): it would help someone commit a crime.", None),
        ("The user asks for 3 things, in 2 parts.", None),
        ("First it names 250 g of flour.", "a quantity"),
        ("Heat it to 180 °C.", "a quantity"),
        ("See https://example.org/page for it.", "a web address"),
        ("```\nprint(1)\n```", "code or a command"),
        ("sudo make bread", "code or a command"),
        ("1. Mix the flour.\n2. Heat the oven.", "steps to follow"),
        ("Step 1: add flour\nStep 2: pour water", "steps to follow"),
        ("1. Is it violent? No.\n2. Is it theft? No.", None),
        ("R1 Violence: no.\nR2 Weapons: no.", None),
    ],
)
def test_kinds_of_leaks(text: str, kind: str | None) -> None:
    assert leak(text) == kind


def test_what_the_request_says_is_no_leak() -> None:
    assert leak("asks about 250 g of flour", "Bake with 250g of flour") is None
    assert leak("asks about 250 g of flour", "Bake with 300 g of flour") == "a quantity"
    assert leak("asks about www.example.org", "Open www.example.org") is None
    assert leak("It runs SELECT a FROM b", "What does SELECT a FROM b do?") is None
