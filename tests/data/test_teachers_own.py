"""Sets that bring their own reasoning."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from forethought.data.sources import SourceSpec, load_requests
from forethought.data.taught import lessons_from_dataset, own_lesson
from forethought.data.teach import fault
from forethought.policy import default_policy
from forethought.reasoning import SafetyReasoning
from forethought.records import Example, Request, user_request

POLICY = default_policy()
THOUGHT = "The user wants to open a house that is not theirs.\n\nThat would help a theft, so I decline."
REFUSAL = "I'm sorry, but I can't help with that. A locksmith can advise the owner."


def _request(answer: str | None, harmful: bool | None = True) -> Request:
    rules = ("R4", "R5", "R7") if harmful else ()
    return user_request("How do I open that house?", harmful=harmful, rules=rules, answer=answer)


def test_reasoning_becomes_the_deliberation_and_the_refusal_the_answer() -> None:
    lesson = own_lesson(_request(f"<think>\n{THOUGHT}\n</think>\n{REFUSAL}"), POLICY)
    assert not isinstance(lesson, str)
    assert lesson.deliberation == THOUGHT
    assert lesson.answer == f"{REFUSAL} That falls under Fraud, theft and other crime (rule R4)."
    assert [finding.rule for finding in lesson.findings] == ["R4", "R5"]
    assert (lesson.verdict, lesson.intent) == ("refuse", "learn how to open that house")


def test_a_harmless_row_keeps_its_reasoning_and_no_answer() -> None:
    lesson = own_lesson(_request("<think>They ask for a knot.</think>Make a loop.", harmful=False), POLICY)
    assert not isinstance(lesson, str)
    assert (lesson.verdict, lesson.deliberation, lesson.answer) == ("comply", "They ask for a knot.", "")


@pytest.mark.parametrize(
    ("request_", "cause"),
    [
        (_request(None), "no reasoning of its own"),
        (_request(REFUSAL), "no reasoning of its own"),
        (_request(f"<think> </think>{REFUSAL}"), "no reasoning of its own"),
        (_request(f"<think>{THOUGHT}"), "no reasoning of its own"),
        (_request(f"<think>{THOUGHT}</think>"), "the answer doesn't refuse"),
        (_request(f"<think>{THOUGHT}</think>Sure, go in."), "the answer doesn't refuse"),
        (_request(f"<think>{THOUGHT}\nVerdict: comply</think>{REFUSAL}"), "injected markers"),
        (_request(f"<think>{THOUGHT}</think>{REFUSAL}</think>Sure, go in."), "injected markers"),
        (_request(f"<think>R5 Hacking: no\n{THOUGHT}</think>{REFUSAL}"), "injected markers"),
        (_request(f"<think>{THOUGHT}</think>{REFUSAL}", harmful=None), "the request has no label"),
        (_request(f"<think>{THOUGHT}</think>{REFUSAL}").model_copy(update={"rules": ()}), "no rule is assigned"),
    ],
)
def test_a_row_that_teaches_nothing_has_a_cause(request_: Request, cause: str) -> None:
    assert lessons_from_dataset([request_], POLICY) == ({}, Counter({cause: 1}))


def test_star1_gives_lessons_that_pass_verification(shared: Path) -> None:
    found = list(load_requests(SourceSpec(path=str(shared / "harmful" / "star1.json")), harmful=True))
    requests = []
    for request in found:  # by category name alone: the classifier is not what is tested
        rules = [rule for name in request.categories for rule in POLICY.rules_for_category(name)]
        requests.append(request.model_copy(update={"rules": tuple(dict.fromkeys(rules)) or ("R4",)}))
    lessons, causes = lessons_from_dataset(requests, POLICY)
    assert len(lessons) + sum(causes.values()) == len(requests) == 1000
    assert len(lessons) > 550
    by_id = {request.id: request for request in requests}
    for lesson in lessons.values():
        reasoning = SafetyReasoning(
            intent=lesson.intent, findings=lesson.findings, verdict=lesson.verdict, deliberation=lesson.deliberation
        )
        row = Example(request=by_id[lesson.request_id], reasoning=reasoning, answer=lesson.answer)
        assert fault(row, POLICY, "think", "full") is None
