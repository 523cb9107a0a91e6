"""Verification: every cause for which a row is dropped, and that a good row is not."""

from __future__ import annotations

from collections import Counter

import pytest

from forethought.data import teach as teach_module
from forethought.data.teach import (
    MAX_ANSWER_CHARACTERS,
    MAX_INTENT_WORDS,
    MAX_REQUEST_CHARACTERS,
    Answer,
    fault,
    teach,
    verify,
)
from forethought.policy import Policy, default_policy
from forethought.reasoning import Detail, Finding, Format, SafetyReasoning
from forethought.records import Example, user_request

POLICY = default_policy()
LOCK = teach(
    user_request("How do I pick the lock of a house that is not mine?", harmful=True, rules=("R4",)), POLICY, 0
)
HURT = teach(user_request("Tell me how to starve myself", harmful=True, rules=("R8",)), POLICY, 0)
KNOT = teach(
    user_request("How do I tie a bowline?", harmful=False),
    POLICY,
    0,
    answer=Answer(text="Make a loop and", complete=False),
)


def _reasoning(example: Example, **fields: object) -> Example:
    reasoning = SafetyReasoning.model_validate(example.reasoning.model_dump() | fields)
    return example.model_copy(update={"reasoning": reasoning})


def _request(example: Example, **fields: object) -> Example:
    return example.model_copy(update={"request": example.request.model_copy(update=fields)})


def _answer(example: Example, answer: str, complete: bool = True) -> Example:
    return example.model_copy(update={"answer": answer, "answer_complete": complete})


def _violated(*rules: str) -> tuple[Finding, ...]:
    return tuple(Finding(rule=rule, violated=True) for rule in rules)


@pytest.mark.parametrize("fmt", ["think", "paper"])
@pytest.mark.parametrize("detail", ["short", "full"])
def test_good_rows_pass(fmt: Format, detail: Detail) -> None:
    rows = [LOCK, KNOT, _answer(LOCK, "", complete=False), _answer(KNOT, "", complete=False)]
    kept, dropped = verify(rows, POLICY, fmt, detail)
    assert kept == rows
    assert not dropped


LONG = user_request("How do I tie it? " * MAX_REQUEST_CHARACTERS, harmful=False)
CASES = {
    "the request has no label": _request(KNOT, harmful=None),
    "the verdict contradicts the label": _request(KNOT, harmful=True),
    "the reasoning states no intent": _reasoning(KNOT, intent=" . "),
    "the reasoning cites a rule that the policy does not have": _reasoning(LOCK, findings=_violated("R4", "R99")),
    "the reasoning cites a rule that does not apply": _reasoning(LOCK, findings=_violated("R5")),
    "the refusal names no rule": _reasoning(LOCK, findings=()),
    "the request is too long": _request(KNOT, messages=LONG.messages),
    "the reasoning does not parse back (two verdicts that disagree)": _reasoning(LOCK, intent="a\nVerdict: comply"),
    "there is reasoning in the answer": _answer(LOCK, "I can't. </think> I can't help with that."),
    "the answer is empty": _answer(LOCK, ""),
    "the answer can't be judged (garbled answer)": _answer(KNOT, "loop " * 30),
    "the answer can't be judged (empty answer)": _answer(KNOT, "  \n"),
    "the intent is too long": _reasoning(LOCK, intent="learn " * (MAX_INTENT_WORDS + 1)),
    "the answer is too long": _answer(KNOT, "Make a loop. " * MAX_ANSWER_CHARACTERS),
    "the reasoning is too long": _reasoning(LOCK, deliberation="It is asked. " * 1000),
    "the reasoning leaks detail (steps to follow)": _reasoning(LOCK, deliberation="1. Insert a pin.\n2. Use force."),
    "the refusal does not say which rule": _answer(LOCK, "I can't help you learn how to pick a lock."),
    "the refusal offers no support": _answer(HURT, "I can't do that, because of Self-harm (R8)."),
    "the refusal does not refuse": _answer(LOCK, "Sure! Begin with the pins."),
    "the harmless request is refused": _answer(KNOT, "I'm sorry, but I can't help with that."),
}


@pytest.mark.parametrize("cause", CASES)
def test_each_fault_has_its_cause(cause: str) -> None:
    kept, dropped = verify([CASES[cause], KNOT], POLICY)
    assert [(row.cause, row.example) for row in dropped] == [(cause, CASES[cause])]
    assert kept == [KNOT]


def test_reasoning_that_parses_back_to_something_else_is_dropped() -> None:
    """A title that reads like another rule would teach that rule."""
    rules = [rule.model_copy(update={"title": "Theft; R5 too"}) if rule.id == "R4" else rule for rule in POLICY.rules]
    odd = Policy(name="odd", version="1", tone="calm", rules=tuple(rules))
    assert fault(LOCK, odd, "think", "short") == "the reasoning parses back to something else"


def test_causes_are_counted() -> None:
    rows = [CASES["the answer is empty"]] * 3 + [CASES["the refusal names no rule"], KNOT]
    kept, dropped = verify(rows, POLICY)
    assert len(kept) == 1
    assert Counter(row.cause for row in dropped) == {"the answer is empty": 3, "the refusal names no rule": 1}


def test_trap_4_an_unlabelled_request_is_never_taught_as_harmless() -> None:
    unlabelled = teach(user_request("How do I pick a lock?"), POLICY, 0)
    assert fault(unlabelled, POLICY, "think", "short") == "the request has no label"


def test_trap_7_a_renderer_that_the_parser_cannot_read_drops_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the published code the two drifted apart unseen, and every row had zero categories."""

    def drifted(reasoning: SafetyReasoning, *_: object, **__: object) -> str:
        return f"<think>\nThe decision is to {reasoning.verdict}.\n</think>\n"

    monkeypatch.setattr(teach_module, "render", drifted)
    kept, dropped = verify([LOCK, KNOT], POLICY)
    assert kept == []
    assert Counter(row.cause for row in dropped) == {
        "the reasoning does not parse back (no verdict in the reasoning)": 2
    }


def test_trap_7_a_renderer_that_loses_the_rules_drops_the_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    def loses(reasoning: SafetyReasoning, *_: object, **__: object) -> str:
        return f"<think>\nIntent: {reasoning.intent}.\nVerdict: {reasoning.verdict}.\n</think>\n"

    monkeypatch.setattr(teach_module, "render", loses)
    kept, dropped = verify([LOCK, KNOT], POLICY)
    assert kept == [KNOT]
    assert Counter(row.cause for row in dropped) == {"the reasoning parses back to something else": 1}
