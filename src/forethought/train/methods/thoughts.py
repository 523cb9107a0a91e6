"""A base model's own thoughts about requests, with the policy in its prompt; which of them may be taught."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.chat import Tokenizer, encode_prompt
from forethought.data.asked import Asked, ask_all
from forethought.errors import ModelError
from forethought.policy import Policy
from forethought.reasoning import Format, markers, parse
from forethought.records import Example, Message, Request
from forethought.store import read_store

if TYPE_CHECKING:
    from forethought.engine.conversation import Response
    from forethought.engine.local import LocalModel

THOUGHT_TOKENS = 160
"""Most tokens that are asked of the model; what goes on after the thought is thrown away."""
_TEMPLATE = """\
Before you answer any request, check it against these rules:
{rules}

Write your check first, in exactly this form:
{opening}
Intent: what is really asked, also when it is disguised.
Verdict: comply. No rule applies.
{closing}
If a rule is broken, the verdict line names it instead, as here for {example}:
Verdict: refuse. {example_title} ({example}): why the request breaks it.
You may reason about the rules between the two lines. After {closing}, act on the verdict."""
_VERDICT_LAST = re.compile(r"(?:^|\n)Verdict: (?:refuse|comply)\b[^\n]*$")
"""As a trained model is read: a line of its own, the last, that begins like this."""


class OwnThought(Asked):
    """What a model thought about one request."""

    thought: str
    """Without markers; empty where it closed none. What stood behind it is kept nowhere."""


def policy_text(policy: Policy, fmt: Format) -> str:
    """The instruction that asks for a check against the policy."""
    opening, closing = markers(fmt)
    first = policy.rules[0]
    filled = {
        "rules": "\n".join(f"{rule.id} {rule.title}: {' '.join(rule.description.split())}" for rule in policy.rules),
        "opening": opening,
        "closing": closing,
        "example": first.id,
        "example_title": first.title,
    }
    return re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], _TEMPLATE)


def with_policy(request: Request, policy: Policy, fmt: Format, tokenizer: Tokenizer) -> Request:
    """The request with the policy in its system prompt, or before its first turn where the template knows no such."""
    text = policy_text(policy, fmt)
    own = [message.content for message in request.messages if message.role == "system"]
    turns = tuple(message for message in request.messages if message.role != "system")
    head = "\n\n".join([text, *own])
    asked = request.model_copy(update={"messages": (Message(role="system", content=head), *turns)})
    try:
        encode_prompt(tokenizer, asked.messages)
    except ModelError:
        first = turns[0].model_copy(update={"content": f"{head}\n\n{turns[0].content}"})
        return request.model_copy(update={"messages": (first, *turns[1:])})
    return asked


def own_thoughts(
    load: Callable[[], LocalModel],
    requests: Sequence[Request],
    policy: Policy,
    fmt: Format,
    tokenizer: Tokenizer,
    file: Path,
) -> dict[str, str]:
    """Thoughts by request id, those that were not closed left out; kept in `file` batch by batch.

    A later call asks only for what is missing, and loads no model where nothing is. What is longer than the model's
    context is left out.
    """
    asked = {request.id: with_policy(request, policy, fmt, tokenizer) for request in requests}
    known = read_store(file, OwnThought)
    if any(one.id not in known for one in asked.values()):
        model = load()
        room = model.context_tokens - THOUGHT_TOKENS
        fits = [one for one in asked.values() if len(encode_prompt(tokenizer, one.messages)) <= room]
        known |= ask_all(model, fits, file, OwnThought, lambda one, response: _kept(one, response, fmt), THOUGHT_TOKENS)
    found = {own: known[one.id].thought for own, one in asked.items() if one.id in known}
    return {own: thought for own, thought in found.items() if thought}


def _kept(request: Request, response: Response, fmt: Format) -> OwnThought:
    opening, closing = markers(fmt)
    before, closed, _ = response.answer.partition(closing)
    thought = before.removeprefix(opening).strip() if closed else ""
    return OwnThought(request_id=request.id, thought=thought)


def is_right(example: Example, thought: str, policy: Policy, fmt: Format) -> bool:
    """Whether a thought may be taught: it can be read, reaches the row's verdict on its last line, and where that is
    to refuse names a rule that the row names."""
    opening, closing = markers(fmt)
    if opening in thought or _VERDICT_LAST.search(thought) is None:
        return False
    found = parse(f"{opening}\n{thought}\n{closing}\n", policy).reasoning
    if found is None or not found.intent or found.verdict != example.reasoning.verdict:
        return False
    return found.verdict == "comply" or bool(set(found.violated) & set(example.reasoning.violated))
