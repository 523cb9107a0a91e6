"""The refusal of a defence that knows a rule and has no thought."""

from __future__ import annotations

from forethought.data.teach import refusal_for
from forethought.defences.base import REFUSAL, conversation_key
from forethought.engine.conversation import Conversation
from forethought.policy import Policy
from forethought.reasoning import Finding, SafetyReasoning


def rule_refusal(policy: Policy, rule_id: str, conversation: Conversation) -> str:
    """A refusal that names the rule and repeats nothing of the request: a suffix has no place in an answer.

    Without a rule it is the plain one.
    """
    if not rule_id:
        return REFUSAL
    finding = Finding(rule=rule_id, violated=True, reason=policy.rule(rule_id).reason)
    reasoning = SafetyReasoning(intent="do that", findings=(finding,), verdict="refuse")
    return refusal_for(reasoning, policy, int(conversation_key(conversation), 16))
