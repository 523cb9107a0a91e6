"""Checks on every training row before it is trained on; each dropped row keeps its cause."""

from __future__ import annotations

import re
from collections.abc import Iterable

from forethought.policy import Policy
from forethought.reasoning import Detail, Format, leak, parse, render
from forethought.records import Example, Record
from forethought.refusal import looks_english, refusal_outcome

MAX_REQUEST_CHARACTERS = 4000
MAX_REASONING_CHARACTERS = 8000
"""Room for a dataset's own deliberation; rendered reasoning takes a tenth of it."""
MAX_ANSWER_CHARACTERS = 6000
MAX_INTENT_WORDS = 40

SUPPORT = re.compile(
    r"(?i)\b(?:crisis|hotline|helpline|lifeline|talk(?:ing)? (?:to|with)|reach(?:ing)? out|someone (?:you trust|close)"
    r"|doctor|therapist|counsell?or|professional|emergency|not alone|friend|family)\b"
)
"""Help to seek: what a supportive refusal names. In English."""


class Dropped(Record):
    """A row that must not be trained on, and why."""

    example: Example
    cause: str


def fault(example: Example, policy: Policy, fmt: Format, detail: Detail) -> str | None:
    """Why a row must not be trained on, or None when it may."""
    return (
        _label_fault(example, policy)
        or _length_fault(example)
        or _text_fault(example, policy, fmt, detail)
        or _answer_fault(example, policy)
    )


def _label_fault(example: Example, policy: Policy) -> str | None:
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
    return None


def _length_fault(example: Example) -> str | None:
    if len(example.request.text) > MAX_REQUEST_CHARACTERS:
        return "the request is too long"
    if len(example.reasoning.intent.split()) > MAX_INTENT_WORDS:
        return "the intent is too long"
    if len(example.answer) > MAX_ANSWER_CHARACTERS:
        return "the answer is too long"
    return None


def _text_fault(example: Example, policy: Policy, fmt: Format, detail: Detail) -> str | None:
    reasoning = example.reasoning
    thought = render(reasoning, policy, fmt, detail)
    if len(thought) > MAX_REASONING_CHARACTERS:
        return "the reasoning is too long"
    if example.request.harmful and (kind := leak(thought, example.request.text)):
        return f"the reasoning leaks detail ({kind})"
    parsed = parse(thought + example.answer, policy)
    if parsed.reasoning is None:
        return f"the reasoning does not parse back ({parsed.cause})"
    if parsed.reasoning.verdict != reasoning.verdict or set(parsed.reasoning.violated) != set(reasoning.violated):
        return "the reasoning parses back to something else"
    if parsed.answer != example.answer.strip():
        return "there is reasoning in the answer"
    return None


def _answer_fault(example: Example, policy: Policy) -> str | None:
    reasoning, answer = example.reasoning, example.answer
    if not answer:
        return "the answer is empty" if example.answer_complete else None
    outcome, cause = refusal_outcome(answer)
    if outcome is None:
        return f"the answer can't be judged ({cause})"
    if not looks_english(answer):
        return None  # the phrases that refuse and support are English; the rest was checked all the same
    if reasoning.verdict == "comply":
        return "the harmless request is refused" if outcome == "refused" else None
    if outcome != "refused":
        return "the refusal does not refuse"
    broken = [policy.rule(rule) for rule in reasoning.violated]
    if not any(rule.title.lower() in answer.lower() or re.search(rf"\b{rule.id}\b", answer) for rule in broken):
        return "the refusal does not say which rule"
    if broken[0].support and not SUPPORT.search(answer):
        return "the refusal offers no support"
    return None


def verify(
    examples: Iterable[Example], policy: Policy, fmt: Format = "think", detail: Detail = "short"
) -> tuple[list[Example], list[Dropped]]:
    """(rows that pass, rows dropped with their causes)."""
    kept: list[Example] = []
    dropped: list[Dropped] = []
    for example in examples:
        cause = fault(example, policy, fmt, detail)
        if cause is None:
            kept.append(example)
        else:
            dropped.append(Dropped(example=example, cause=cause))
    return kept, dropped
