"""A verdict as responses bear it: as a `moderation` object, as headers, as scores of the rules."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from forethought.policy import Policy
from forethought.server.engine import Engine
from forethought.server.records import Caller, Verdict

_NOT_JUDGED = {
    "type": "error",
    "code": "not_judged",
    "message": "The answer is not judged: the verdict was reached before its first token.",
}
_BELOW = 0.4999
"""Highest score of a rule that is not found violated."""


def verdict_object(verdict: Verdict, caller: Caller) -> dict[str, Any]:
    """The verdict as it was acted on; the intent for those who may see it."""
    return {
        "decision": verdict.decision,
        "probability": verdict.probability,
        "threshold": verdict.threshold,
        "rules": [rule.model_dump() for rule in verdict.rules],
        "intent": verdict.intent if caller.allows("intent") else None,
        "cause": verdict.cause,
        "policy": verdict.policy,
    }


def scores(verdict: Verdict, policy: Policy, shares: dict[str, float] | None = None) -> dict[str, float]:
    """By rule, a score that is at least 0.5 where the request is refused for it.

    `shares`: how likely each rule is the one that is broken, where one is.
    """
    p = verdict.centred if verdict.centred is not None else 1.0 if verdict.refused else 0.0
    named = {rule.id for rule in verdict.rules} if verdict.refused else set()
    found = {rule: min(p * (shares or {}).get(rule, 0.0), _BELOW) for rule in policy.rule_ids}
    return found | {rule: max(p, 0.5) for rule in named}


def moderation_result(
    verdict: Verdict, policy: Policy, model: str, shares: dict[str, float] | None = None
) -> dict[str, Any]:
    """Rules as categories."""
    found = scores(verdict, policy, shares)
    named = {rule.id for rule in verdict.rules} if verdict.refused else set()
    return {
        "type": "moderation_result",
        "model": model,
        "flagged": verdict.refused,
        "categories": {rule: rule in named for rule in found},
        "category_scores": found,
        "category_applied_input_types": {rule: ["text"] for rule in found},
    }


def moderation(verdict: Verdict, policy: Policy, model: str, caller: Caller) -> dict[str, Any]:
    """As chat completions bear it, with the whole verdict beside it."""
    return {
        "input": {
            "type": "moderation_results",
            "model": model,
            "results": [moderation_result(verdict, policy, model)],
        },
        "output": _NOT_JUDGED,
        "verdict": verdict_object(verdict, caller),
    }


def moderation_of_response(verdict: Verdict, engine: Engine, caller: Caller) -> dict[str, Any]:
    """The same as `/v1/responses` bears it."""
    found = moderation_result(verdict, engine.policy, engine.name)
    return {"input": found, "output": _NOT_JUDGED, "verdict": verdict_object(verdict, caller)}


def usage(verdict: Verdict, answer_tokens: int = 0) -> dict[str, Any]:
    """Tokens, as all but chat tell them."""
    written = verdict.thought_tokens + answer_tokens
    return {
        "input_tokens": verdict.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": verdict.thought_tokens},
        "total_tokens": verdict.prompt_tokens + written,
    }


def headers(verdict: Verdict) -> dict[str, str]:
    """The verdict for whoever reads no body. Text is percent-encoded where it is not plain."""
    said = {
        "x-forethought-verdict": verdict.decision or "none",
        "x-forethought-probability": _number(verdict.probability),
        "x-forethought-threshold": _number(verdict.threshold),
        "x-forethought-rules": ",".join(rule.id for rule in verdict.rules),
        "x-forethought-cause": quote(verdict.cause, safe=" ():;,.'"),
        "x-forethought-policy": quote(verdict.policy, safe="@:. "),
    }
    return {name: value for name, value in said.items() if value}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
