"""A model that answers by rule: stands for anything that conversations can be put to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.records import Message

Answer = Callable[[Conversation], str | Response | Failed]
LogProb = Callable[[Conversation, str, bool], float]
"""(conversation, text in the model's turn, first token alone) to its natural log-probability."""


def as_messages(text: str, system: str | None = None) -> tuple[Message, ...]:
    """A user's text as a conversation, behind a system prompt when given."""
    head = (Message(role="system", content=system),) if system else ()
    return (*head, Message(role="user", content=text))


class Scripted:
    """A Respondent. Remembers every conversation it was given, in order and call by call."""

    def __init__(
        self, answer: Answer, name: str = "scripted", able: Able | None = None, log_prob: LogProb | None = None
    ) -> None:
        """`answer` gives the text of the whole answer turn, a Response where more is wanted, or a failure."""
        self.name = name
        self.calls: list[list[Conversation]] = []
        self.limits: list[int] = []
        """`max_answer_tokens` of each call."""
        self._answer, self._log_prob = answer, log_prob
        self._able = able or Able(prefill=True, budget=True, log_probs=log_prob is not None)

    @property
    def able(self) -> Able:
        return self._able

    @property
    def asked(self) -> list[Conversation]:
        """Every conversation of every call of `reply`."""
        return [conversation for call in self.calls for conversation in call]

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        self.calls.append(list(conversations))
        self.limits.append(max_answer_tokens)
        replies = []
        for place, conversation in enumerate(conversations):
            said = self._answer(conversation)
            reply = Response(answer=said, prompt_tokens=5, answer_tokens=7) if isinstance(said, str) else said
            replies.append(reply)
            if on_reply is not None:
                on_reply(place, reply)
        return replies

    def log_probs(
        self,
        conversations: Sequence[Conversation],
        target_strings: Sequence[str],
        first_only: Sequence[bool] | bool = False,
    ) -> list[float]:
        """As `LocalModel.log_probs`; raises AssertionError where no hook was given."""
        assert self._log_prob is not None, "this scripted model was given no log_prob"
        firsts = [first_only] * len(conversations) if isinstance(first_only, bool) else first_only
        return [
            self._log_prob(conversation, text, first)
            for conversation, text, first in zip(conversations, target_strings, firsts, strict=True)
        ]
