"""Lessons from a set that brings its own reasoning, such as STAR-1 (arXiv 2504.01903).

Its answers read `<think>` reasoning `</think>` refusal. The reasoning becomes the deliberation, the refusal
the answer. Published refusals don't name our rules: a sentence that does is added.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from inspect_ai.model import Model

from forethought.data.teach import Lesson, intent_of
from forethought.data.teachers.prompt import (
    TeachTask,
    call_for,
    expected_tokens,
    response_schema,
    system_prompt,
    tokens_in,
    user_prompt,
)
from forethought.data.teachers.read import has_markers, has_rule_lines, lines_kept, read_lesson, with_rule
from forethought.data.verify import MAX_REQUEST_CHARACTERS, fault
from forethought.errors import ConfigError
from forethought.models.calls import run_calls
from forethought.models.callspec import CallSettings, Price, Progress, Usage, cost_of
from forethought.policy import Policy
from forethought.reasoning import Finding, SafetyReasoning
from forethought.records import Example, Record, Request
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


# Lessons from an LLM: what they will cost, before the first call; asked once a seed, and every cause counted.

PAPER_CALLS = {True: 7, False: 3}
"""Calls the published pipeline makes for a harmful and a harmless request (arXiv 2501.19180)."""


def lessons_from_model(
    tasks: Sequence[TeachTask],
    policy: Policy,
    model: str | Model,
    journal: Path,
    settings: CallSettings,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[dict[str, Lesson], Counter[str], Usage]:
    """(lessons by request id, causes, usage).

    Causes count requests without a lesson (`dropped: ...`), answers that had to be asked for again
    (`rejected: ...`), and lessons that lack something (`variant: ...`, `twin: ...`), apart.
    A request that stands in several tasks must ask for the same each time.

    Raises ModelError when the model can't be used at all; see `run_calls`.
    """
    causes: Counter[str] = Counter()
    askable: dict[str, TeachTask] = {}
    for task in tasks:
        cause = _unaskable(task, policy)
        if cause is not None:
            causes[f"dropped: {cause}"] += 1
        elif askable.setdefault(task.request.id, task) != task:
            raise ConfigError(
                f"request {task.request.id}", "stands in two tasks that differ", "Give each request one task"
            )
    system = system_prompt(policy)
    results = run_calls(
        model,
        [call_for(task, system) for task in askable.values()],
        journal,
        settings,
        lambda key, text: read_lesson(text, askable[key], policy),
        response_schema(policy),
        on_progress,
    )
    causes.update({f"rejected: {cause}": count for cause, count in results.rejected.items()})
    causes.update(Counter(f"dropped: {cause}" for cause in results.dropped.values()))
    lessons: dict[str, Lesson] = {}
    for key, (lesson, missing) in results.values.items():
        lessons[key] = lesson
        causes.update(missing)
    return lessons, causes, results.usage


def _unaskable(task: TeachTask, policy: Policy) -> str | None:
    """Why a call would be wasted."""
    request = task.request
    if request.harmful is None:
        return "the request has no label"
    if len(request.text) > MAX_REQUEST_CHARACTERS:
        return "the request is too long"
    if any(rule not in policy.rule_ids for rule in request.rules):
        return "the request has a rule that the policy does not have"
    return None


class Estimate(Record):
    """Expected use of a run in which every answer is accepted at once. Tokens are estimated from characters."""

    calls: int
    input_tokens: int
    """All prompt tokens."""
    shared_tokens: int
    """Part of `input_tokens` that is the same in every call; a prompt cache may serve it cheaper."""
    output_tokens: int
    cost: float | None
    """US dollars, without cache discounts; None where the price is unknown."""
    paper_calls: int
    """Calls that the published pipeline would make for the same requests."""
    attempts: int
    """Most calls for one request: rejected answers are asked for again."""

    def __str__(self) -> str:
        price = "unknown price (give one per million tokens)" if self.cost is None else f"about ${self.cost:,.2f}"
        shared = round(100 * self.shared_tokens / self.input_tokens) if self.input_tokens else 0
        return (
            f"{self.calls:,} calls (at most {self.attempts} for a request; the published pipeline makes"
            f" {self.paper_calls:,}), about {self.input_tokens:,} tokens in ({shared}% of them the same in every call)"
            f" and {self.output_tokens:,} out: {price}"
        )


def estimate(tasks: Sequence[TeachTask], policy: Policy, settings: CallSettings, price: Price | None) -> Estimate:
    """Calls, tokens and price of teaching these tasks; `price` as `pricing.price_of` gives it."""
    system = tokens_in(system_prompt(policy))
    shared = system * len(tasks)
    asked = shared + sum(tokens_in(user_prompt(task)) for task in tasks)
    written = sum(expected_tokens(task) + settings.thinking_tokens for task in tasks)
    return Estimate(
        calls=len(tasks),
        input_tokens=asked,
        shared_tokens=shared,
        output_tokens=written,
        cost=cost_of(asked, written, 0, price),
        paper_calls=sum(PAPER_CALLS[bool(task.request.harmful)] for task in tasks),
        attempts=settings.attempts,
    )
