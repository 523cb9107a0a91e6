"""Thoughts up to their verdict, and the verdict that follows a thought which was put into the model's turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from forethought.engine.conversation import Conversation, Failed, Response
from forethought.errors import ModelError
from forethought.evals.inside.sample import Asked
from forethought.reasoning import VERDICT_ANCHOR, Format, markers
from forethought.records import Record, Request

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

OnDone = Callable[[int], None]
"""Told the number of conversations that are finished."""
_INTENT = re.compile(r"(?im)^(\W*intent\b\W*)(.+?)\s*$")


class Thought(Record):
    """What the model thought of a request before its verdict, and the verdict's log-odds."""

    asked: Asked
    before: str = ""
    """The thought up to the verdict's line, without markers."""
    log_odds: float | None = None
    """Natural log-odds of refusing; None without a verdict."""
    cause: str = ""
    """Why there is no verdict."""

    @property
    def request(self) -> Request:
        """The request as it was asked."""
        return self.asked.request

    @property
    def intent(self) -> str:
        """What the thought says is asked; empty where it doesn't say."""
        found = _INTENT.search(self.before)
        return found[2].rstrip(".") if found else ""


def need_thoughts(model: LocalModel) -> Format:
    """How the model writes its thoughts. Raises ModelError for one that doesn't think."""
    if model.thinking is None:
        raise ModelError(model.name, "does not think: there is no thought to look into", "Give a scot model")
    return model.thinking.format


def own_thoughts(model: LocalModel, asked: Sequence[Asked], on_done: OnDone | None = None) -> list[Thought]:
    """The model's own thoughts up to their verdicts, in order."""
    need_thoughts(model)
    replies = _ask(model, [Conversation(messages=one.request.messages) for one in asked], on_done)
    return [_thought(one, reply) for one, reply in zip(asked, replies, strict=True)]


def verdicts(
    model: LocalModel, requests: Sequence[Request], thoughts: Sequence[str | None], on_done: OnDone | None = None
) -> list[float | None]:
    """Log-odds of the verdict right behind each thought that is put into the model's turn (`before`).

    None as a thought is passed on, as is a conversation without a reply.
    """
    fmt = need_thoughts(model)
    places = [place for place, thought in enumerate(thoughts) if thought is not None]
    given = [
        Conversation(messages=requests[place].messages, prefill=up_to_verdict(thoughts[place] or "", fmt))
        for place in places
    ]
    found: list[float | None] = [None] * len(thoughts)
    for place, reply in zip(places, _ask(model, given, on_done), strict=True):
        found[place] = None if isinstance(reply, Failed) else reply.log_odds
    return found


def up_to_verdict(before: str, fmt: Format) -> str:
    """The model's turn up to the anchor behind which its verdict comes; an empty thought is the anchor alone."""
    return "\n".join([markers(fmt)[0], *([before] if before else []), VERDICT_ANCHOR])


def with_intent(before: str, intent: str) -> str | None:
    """A thought with another intent in its line and all else as it was; None where it states none."""
    if not _INTENT.search(before):
        return None
    return _INTENT.sub(lambda found: f"{found[1]}{intent}.", before, count=1)


def _ask(model: LocalModel, conversations: Sequence[Conversation], on_done: OnDone | None) -> list[Response | Failed]:
    told = None if on_done is None else lambda place, reply: on_done(1)
    return model.reply(conversations, 0, told)


def _thought(asked: Asked, reply: Response | Failed) -> Thought:
    if isinstance(reply, Failed):
        return Thought(asked=asked, cause=reply.cause)
    before = reply.reasoning_text.partition(VERDICT_ANCHOR)[0].rstrip()
    cause = "" if reply.log_odds is not None else reply.cause or "no verdict"
    return Thought(asked=asked, before=before, log_odds=reply.log_odds, cause=cause)
