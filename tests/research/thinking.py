"""A model that thinks by a rule of the test: what looks inside of it have to find is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forethought.models.conversation import Conversation, Failed, OnReply, Response
from forethought.models.settings import Settings
from forethought.policy import default_policy

Odds = Callable[[str, str], float | None]
"""(request text, thought before the verdict) to log-odds."""


class Thinking:
    """Stands for a local model that thinks: states the request as its intent, and decides by a rule of the test."""

    name = "thinking"

    def __init__(self, odds: Odds, intent: Callable[[str], str] = lambda text: text, fmt: Any = "think") -> None:
        self.thinking = Settings(policy=default_policy(), format=fmt)
        self.asked: list[Conversation] = []
        self._odds, self._intent = odds, intent

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        assert max_answer_tokens == 0  # verdicts alone are wanted
        replies = []
        for place, one in enumerate(conversations):
            self.asked.append(one)
            replies.append(self._one(one))
            if on_reply is not None:
                on_reply(place, replies[-1])
        return replies

    def _one(self, one: Conversation) -> Response | Failed:
        text = one.messages[-1].content
        if "breaks down" in text:
            return Failed(cause="broke down")
        own = f"<think>\nIntent: {self._intent(text)}.\nVerdict:"
        before = (one.prefill or own).removeprefix("<think>\n").removesuffix("Verdict:").rstrip()
        odds = self._odds(text, before)
        said = f"{before}\nVerdict: {'refuse' if (odds or 0) >= 0 else 'comply'}"
        return Response(reasoning_text=said, answer="", log_odds=odds)


def is_bad(text: str) -> bool:
    return "lock" in text


def by_intent(text: str, before: str) -> float:
    """A verdict that follows what the thought says."""
    return 2.0 if is_bad(before) else -3.0


def by_request(text: str, before: str) -> float:
    """A verdict that follows the request, whatever the thought says."""
    return 2.0 if is_bad(text) else -3.0
