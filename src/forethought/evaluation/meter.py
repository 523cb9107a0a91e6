"""A model that is asked, with what passes through it counted: for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from forethought.engine.callspec import Price, cost_of
from forethought.engine.conversation import Able, Conversation, Failed, OnReply, Respondent, Response
from forethought.progress import Bar


class Meter:
    """A respondent that counts what passes through it, for whoever watches."""

    def __init__(self, inner: Respondent, price: Price | None) -> None:
        self._inner, self._price = inner, price
        self.name = inner.name
        self.replies = self.failed = self.tokens_in = self.tokens_out = 0
        self._start = time.monotonic()

    @property
    def able(self) -> Able:
        """What the model behind it can do."""
        return self._inner.able

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """The model's own replies."""
        if not self.replies:
            self._start = time.monotonic()

        def told(place: int, reply: Response | Failed) -> None:
            self._count(reply)
            if on_reply is not None:
                on_reply(place, reply)

        return self._inner.reply(conversations, max_answer_tokens, told)

    @property
    def note(self) -> str:
        """Replies a second, and what they cost where that is known."""
        seconds = max(time.monotonic() - self._start, 0.001)
        cost = cost_of(self.tokens_in, self.tokens_out, 0, self._price)
        parts = [f"{self.replies / seconds:.1f}/s"] if self.replies else []
        parts += [f"${cost:.2f}"] if cost is not None else []
        return ", ".join([*parts, *([f"{self.failed} failed"] if self.failed else [])])

    def telling(self, bar: Bar) -> Callable[[int], None]:
        """What a run calls with the attempts that are finished: the bar, with this note."""
        return lambda steps: bar.advance(steps, self.note)

    def _count(self, reply: Response | Failed) -> None:
        self.replies += 1
        if isinstance(reply, Failed):
            self.failed += 1
            return
        self.tokens_in += reply.prompt_tokens
        self.tokens_out += reply.reasoning_tokens + reply.answer_tokens
