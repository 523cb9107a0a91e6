"""From what a defence replied to a verdict that is acted on; it fails closed."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.defences.base import REFUSAL, logit
from forethought.model import Model, RuleNamed, share
from forethought.models.conversation import Response, Unanswered
from forethought.policy import Policy
from forethought.server.records import Asked, Verdict

UNREADABLE = "refused: the thought could not be read"
NEVER_ENDED = "refused: the thought did not end in time"
UNSCORED = "refused: the thought could not be scored"
TIGHTENED = "refused by the request's own threshold"
BROUGHT = "refused for what the request brought besides: a beginning of the answer, tools or a schema"


def policy_line(policy: Policy) -> str:
    """Name, version and content of a policy, as responses name it."""
    return f"{policy.name}@{policy.version}:{policy.hash}"


def verdict_of(reply: Response, model: Model, fail_closed: bool) -> Verdict:
    """What is acted on, given what the model behind its defence said."""
    limit, decision = model.threshold, reply.decision
    if decision is None and limit is not None and reply.log_odds is not None:
        decision = "refuse" if reply.log_odds >= limit else "comply"
    by_filter = model.local is not None and model.local.leaves_answers and not isinstance(reply, Unanswered)
    if decision is None and by_filter:  # what was let through has its answer still to come
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
    if model.local is not None and model.local.thinks and reply.reasoning is None:
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
