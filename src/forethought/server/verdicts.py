"""From what a defence replied to a verdict that is acted on; it fails closed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from forethought.defences.base import REFUSAL, logit
from forethought.defences.demand import CERTAIN
from forethought.errors import InputError
from forethought.model import Model, RuleNamed, share
from forethought.models.conversation import Conversation, Failed, Response, Unanswered
from forethought.policy import Policy
from forethought.server.config import Settings
from forethought.server.records import Asked, Verdict

UNREADABLE = "refused: the thought could not be read"
NEVER_ENDED = "refused: the thought did not end in time"
UNSCORED = "refused: the thought could not be scored"
TIGHTENED = "refused by the request's own threshold"
BROUGHT = "refused for what the request brought besides: a beginning of the answer, tools or a schema"


def policy_line(policy: Policy) -> str:
    """Name, version and content of a policy, as responses name it."""
    return f"{policy.name}@{policy.version}:{policy.hash}"


def decide(model: Model, asked: Asked, settings: Settings) -> Verdict:
    """The verdict of a model whose defence decides before there is an answer. Raises InputError for a conversation that
    it can't be given."""
    conversations, verdicts = [Conversation(messages=messages) for messages in asked.judged], []
    for reply in model.respondent.reply(conversations, settings.refusal_tokens):
        if isinstance(reply, Failed):
            raise InputError("The conversation", reply.cause, "Change or shorten it")
        verdicts.append(verdict_of(reply, model, settings.fail_closed, answer_to_come=True))
    return strictest(verdicts)


def answer_ids(model: Model, asked: Asked, verdict: Verdict) -> list[int]:
    """Token ids that the answer goes on from. Raises InputError where the defence allows no tools."""
    local = model.local
    assert local is not None
    plain = local.prompt_ids(asked.messages)
    ids = list(verdict.after) or plain
    if asked.answered:
        if ids[: len(plain)] != plain:
            raise InputError("tools", f"can't be used behind the defence '{model.defence}'", "Leave them out")
        ids = local.prompt_ids(asked.answered) + ids[len(plain) :]
    return ids + (local.ids(asked.prefill) if asked.prefill else [])


def rule_shares(model: Model, asked: Asked) -> dict[str, float]:
    """How likely each rule is the one that is broken, by the probe of the outermost defence with one."""
    respondent: Any = model.respondent
    while respondent is not model.local and getattr(respondent, "probe", None) is None:
        respondent = getattr(respondent, "inner", model.local)
    probe = getattr(respondent, "probe", None)
    if model.local is None or probe is None or not probe.settings.rules:
        return {}
    of_rules = [float(one) for one in probe.log_odds(model.local, [asked.messages])[0][1:]]
    if probe.settings.each_rule_alone:
        of_rules = [-math.log1p(math.exp(-one)) for one in of_rules]
    return {rule: math.exp(one) for rule, one in zip(probe.settings.rules, of_rules, strict=True)}


def verdict_of(reply: Response, model: Model, fail_closed: bool, answer_to_come: bool = False) -> Verdict:
    """What is acted on, given what the model behind its defence said. `answer_to_come`: what it lets through has no
    answer yet."""
    limit, decision = model.threshold, reply.decision
    if decision is None and limit is not None and reply.log_odds is not None:
        decision = "refuse" if reply.log_odds >= limit else "comply"
    if decision is None and answer_to_come and not isinstance(reply, Unanswered):
        # By a filter: what was let through has its answer still to come.
        decision = "refuse"
    found = Verdict(
        decision=decision,
        score=reply.log_odds,
        limit=limit,
        probability=None if reply.log_odds is None else share(reply.log_odds),
        threshold=None if limit is None else share(limit),
        rules=tuple(RuleNamed(id=one, title=model.policy.rule(one).title) for one in reply.rules_named),
        intent=reply.reasoning.intent if reply.reasoning is not None else "",
        cause=reply.cause,
        thought=reply.reasoning_text,
        refusal=(reply.answer or REFUSAL) if decision == "refuse" else "",
        policy=policy_line(model.policy),
        prompt_tokens=reply.prompt_tokens,
        thought_tokens=reply.reasoning_tokens,
        refusal_tokens=reply.answer_tokens if decision == "refuse" else 0,
    )
    if isinstance(reply, Unanswered):
        found = found.model_copy(update={"after": reply.prompt, "by_thinker": reply.by_thinker})
    if not fail_closed or found.decision != "comply":
        return found
    unread = reply.reasoning is None and reply.cause != CERTAIN
    if model.local is not None and model.local.thinks and unread:
        return refused(found, f"{UNREADABLE} ({reply.cause or 'none was written'})")
    if limit is not None and reply.log_odds is None:
        return refused(found, UNSCORED)
    return found


def refused(verdict: Verdict, cause: str) -> Verdict:
    """The verdict turned into a refusal that says why."""
    return verdict.model_copy(update={"decision": "refuse", "cause": cause, "refusal": REFUSAL})


def tightened(verdict: Verdict, asked: Asked) -> Verdict:
    """Held against the request's own threshold as well; a looser one changes nothing."""
    if asked.threshold is None or verdict.score is None or verdict.threshold is None:
        return verdict
    if asked.threshold >= verdict.threshold:
        return verdict
    limit = logit(asked.threshold)
    held = verdict.model_copy(update={"limit": limit, "threshold": asked.threshold})
    return refused(held, TIGHTENED) if held.decision == "comply" and verdict.score >= limit else held


def never_ended(policy: Policy) -> Verdict:
    """Of a thought that was given up."""
    return refused(Verdict(decision=None, policy=policy_line(policy)), NEVER_ENDED)


def strictest(verdicts: Sequence[Verdict]) -> Verdict:
    """Of the verdicts on what `Asked.judged` holds: the first that refuses, else that on the conversation itself."""
    found = next((one for one in verdicts if one.refused), verdicts[0])
    return found if found is verdicts[0] else found.model_copy(update={"cause": BROUGHT})
