"""Lessons from a set that brings its own reasoning, such as STAR-1 (arXiv 2504.01903).

Its answers read `<think>` reasoning `</think>` refusal. The reasoning becomes the deliberation, the refusal
the answer. Published refusals don't name our rules: a sentence that does is added.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from forethought.data.teach import Lesson, intent_of
from forethought.data.teachers.read import has_markers, has_rule_lines, lines_kept, with_rule
from forethought.data.verify import fault
from forethought.policy import Policy
from forethought.reasoning import Finding, SafetyReasoning
from forethought.records import Example, Request
from forethought.refusal import refusal_outcome

_THOUGHT = re.compile(r"(?s)^\s*<think>(?P<thought>.*?)</think>(?P<answer>.*)$")
_DELIBERATION_CHARACTERS = 6000


def lessons_from_dataset(requests: Sequence[Request], policy: Policy) -> tuple[dict[str, Lesson], Counter[str]]:
    """(lessons by request id, how many requests got none by cause).

    Harmful requests need their rules first (`classify.assign`). Harmless ones keep their
    reasoning; the target model answers them itself. An answer that complies is never kept for a
    harmful request, however well it was meant: phrases can't tell a safe completion from a harmful one.
    """
    lessons: dict[str, Lesson] = {}
    causes: Counter[str] = Counter()
    for request in requests:
        lesson = own_lesson(request, policy)
        if isinstance(lesson, str):
            causes[lesson] += 1
        else:
            lessons[request.id] = lesson
    return lessons, causes


def own_lesson(request: Request, policy: Policy) -> Lesson | str:
    """The lesson a request brings along, or the cause why there is none."""
    if request.harmful is None:
        return "the request has no label"
    match = _THOUGHT.match(request.answer or "")
    if match is None or not match["thought"].strip():
        return "no reasoning of its own"
    thought, answer = lines_kept(match["thought"], _DELIBERATION_CHARACTERS), match["answer"].strip()
    if has_markers(thought) or has_markers(answer) or has_rule_lines(thought, policy):
        return "injected markers"
    rules = [policy.rule(rule_id) for rule_id in request.rules[:2]]
    if request.harmful:
        if not rules:
            return "no rule is assigned"
        if refusal_outcome(answer)[0] != "refused":
            return "the answer doesn't refuse"
        answer = with_rule(lines_kept(answer, _DELIBERATION_CHARACTERS), rules)
    reasoning = SafetyReasoning(
        intent=intent_of(request.plain),
        findings=tuple(Finding(rule=rule.id, violated=True, reason=rule.reason) for rule in rules),
        deliberation=thought,
        verdict="refuse" if request.harmful else "comply",
    )
    lesson = Lesson(
        request_id=request.id,
        intent=reasoning.intent,
        findings=reasoning.findings,
        verdict=reasoning.verdict,
        deliberation=thought,
        answer=answer if request.harmful else "",
    )
    example = Example(request=request, reasoning=reasoning, answer=lesson.answer, answer_complete=bool(lesson.answer))
    return fault(example, policy, "think", "full") or lesson
