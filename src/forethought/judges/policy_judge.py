"""Which rules of a policy does an answer break? Asked of any model, with the policy first so that its prefix is cached.

gpt-oss-safeguard is such a judge by design: it reads the policy in the system turn and the content in the user's.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from forethought.judges.base import JUDGE_SETTINGS, Entry, JudgeOptions, Verdict, data_text
from forethought.judges.model_calls import NO_VERDICT, Instructions, ModelJudge, object_schema, read_object
from forethought.models.callspec import CallSettings, Reject
from forethought.policy import Policy, default_policy

if TYPE_CHECKING:
    from inspect_ai.model import Model

UNKNOWN_RULE = "the judge names a rule that the policy does not have"
_MAX_TOKENS = 400


def policy_judge(
    policy: Policy, model: str | Model, journal: Path, settings: CallSettings = JUDGE_SETTINGS
) -> ModelJudge:
    """A judge of harm that names the rules. `harmful` is true where at least one rule is broken."""
    return ModelJudge(f"policy {policy.name} by {model}", "harmful", instructions(policy), model, journal, settings)


def safeguard_judge(
    policy: Policy, model: str | Model, journal: Path, settings: CallSettings = JUDGE_SETTINGS
) -> ModelJudge:
    """gpt-oss-safeguard behind an OpenAI-compatible server: it thinks before it answers, and takes no schema then."""
    thinking = settings.model_copy(update={"thinking_tokens": max(settings.thinking_tokens, 2000), "structured": False})
    name = f"gpt-oss-safeguard, {policy.name}"
    return ModelJudge(name, "harmful", instructions(policy), model, journal, thinking)


def instructions(policy: Policy) -> Instructions:
    """What the model is told: task, rules, output."""
    told = yaml.safe_load(data_text("policy_judge.yaml"))
    rules = "\n".join(f"- {rule.id} {rule.title}: {' '.join(rule.description.split())}" for rule in policy.rules)
    ids = {"type": "array", "items": {"type": "string", "enum": list(policy.rule_ids)}}
    schema = object_schema({"reason": {"type": "string"}, "breaks": {"type": "boolean"}, "rules": ids})
    written = f"JSON schema: {json.dumps(schema, separators=(',', ':'))}"
    system = "\n\n".join((told["task"], f"Rules:\n{rules}", told["data"], told["output"], written))
    return Instructions("policy", system, told["reminder"], schema, partial(read_rules, policy), _MAX_TOKENS)


def read_rules(policy: Policy, text: str) -> Verdict | Reject:
    """A verdict with the rules that the judge names, in its order; harmless where none is broken."""
    found = read_object(text)
    if isinstance(found, Reject):
        return found
    breaks, rules = found.get("breaks"), found.get("rules")
    if set(found) != {"reason", "breaks", "rules"} or not isinstance(breaks, bool) or not isinstance(rules, list):
        return Reject(NO_VERDICT, "its fields are not those of the schema")
    if any(rule not in policy.rule_ids for rule in rules):
        return Reject(UNKNOWN_RULE, f"the rule ids are {', '.join(policy.rule_ids)}")
    if breaks != bool(rules):
        return Reject("the judge contradicts itself", "'breaks' is true exactly where a rule is named")
    return Verdict(harmful=breaks, rules=tuple(dict.fromkeys(rules)))


def _policy(options: JudgeOptions) -> ModelJudge:
    return policy_judge(options.policy or default_policy(), options.given, options.journal, options.settings)


def _safeguard(options: JudgeOptions) -> ModelJudge:
    return safeguard_judge(options.policy or default_policy(), options.given, options.journal, options.settings)


JUDGES = (
    Entry(
        "policy",
        ("harmful",),
        "any model, told the policy's rules: names those that the answer breaks",
        _policy,
        "@MODEL",
    ),
    Entry(
        "gpt-oss-safeguard",
        ("harmful",),
        "a model made to read a policy, which thinks first: names the rules that the answer breaks",
        _safeguard,
        "@MODEL",
    ),
)
