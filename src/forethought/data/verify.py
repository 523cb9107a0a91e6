"""Checks on every training row before it is trained on; each dropped row keeps its cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from forethought.policy import Policy
from forethought.reasoning import Detail, Format, parse, render
from forethought.records import Example
from forethought.refusal import refusal_outcome

MAX_REQUEST_CHARACTERS = 4000


def fault(example: Example, policy: Policy, fmt: Format, detail: Detail) -> str | None:
    """Why a row must not be trained on, or None when it may."""
    reasoning, request = example.reasoning, example.request
    if request.harmful is None:
        return "the request has no label"
    if (reasoning.verdict == "refuse") != request.harmful:
        return "the verdict contradicts the label"
    if not reasoning.intent.strip(" ."):
        return "the reasoning states no intent"
    if any(rule not in policy.rule_ids for rule in reasoning.violated):
        return "the reasoning cites a rule that the policy does not have"
    if request.rules and not set(reasoning.violated) <= set(request.rules):
        return "the reasoning cites a rule that does not apply"
    if reasoning.verdict == "refuse" and not reasoning.violated:
        return "the refusal names no rule"
    if len(request.text) > MAX_REQUEST_CHARACTERS:
        return "the request is too long"
    return _text_fault(example, policy, fmt, detail)


def _text_fault(example: Example, policy: Policy, fmt: Format, detail: Detail) -> str | None:
    reasoning = example.reasoning
    parsed = parse(render(reasoning, policy, fmt, detail) + example.answer, policy)
    if parsed.reasoning is None:
        return f"the reasoning does not parse back ({parsed.cause})"
    if parsed.reasoning.verdict != reasoning.verdict or set(parsed.reasoning.violated) != set(reasoning.violated):
        return "the reasoning parses back to something else"
    if parsed.answer != example.answer.strip():
        return "there is reasoning in the answer"
    if not example.answer:
        return "the answer is empty" if example.answer_complete else None
    outcome, cause = refusal_outcome(example.answer)
    if outcome is None:
        return f"the answer can't be judged ({cause})"
    if reasoning.verdict == "refuse" and outcome != "refused":
        return "the refusal does not refuse"
    if reasoning.verdict == "comply" and outcome == "refused":
        return "the harmless request is refused"
    return None


def verify(
    examples: Iterable[Example], policy: Policy, fmt: Format = "think", detail: Detail = "short"
) -> tuple[list[Example], Counter[str]]:
    """(rows that pass, how many were dropped by cause)."""
    kept: list[Example] = []
    dropped: Counter[str] = Counter()
    for example in examples:
        cause = fault(example, policy, fmt, detail)
        if cause is None:
            kept.append(example)
        else:
            dropped[cause] += 1
    return kept, dropped
