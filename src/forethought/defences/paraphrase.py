"""Paraphrasing: the request is put into other words before the model sees it (Jain et al., arXiv 2309.00614).

A suffix that was optimised token by token rarely survives. Meaning may not survive either: measure capability, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from forethought.defences.base import InferenceDefence, Replies, Wrapper, ask_some, last_user, with_last_user
from forethought.judges.model_calls import fence_mark, fenced
from forethought.models.conversation import Conversation, Failed, OnReply, Respondent, Response
from forethought.records import Message, Record

NO_PARAPHRASE = "there is no paraphrase of the request"
_ASK = "Paraphrase the text between the tags. Keep its meaning, don't answer it, and write the paraphrase alone."


class ParaphraseSettings(Record):
    """How to paraphrase."""

    max_tokens: int = Field(default=100, ge=1, description="longest paraphrase, in tokens (the paper's 100)")


class Paraphrase(Wrapper):
    """A model that sees a paraphrase of the last user turn."""

    def __init__(
        self, inner: Respondent, paraphraser: Respondent | None = None, settings: ParaphraseSettings | None = None
    ) -> None:
        """`paraphraser` None is the model itself."""
        super().__init__(inner, "paraphrase")
        self.paraphraser = paraphraser or inner
        self.settings = settings or ParaphraseSettings()

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """As a Respondent. Without a paraphrase a conversation is Failed: the undefended request is never put."""
        replies = Replies(len(conversations), on_reply)
        written: dict[int, str] = {}

        def keep(place: int, reply: Response | Failed) -> None:
            text = reply.answer.strip() if isinstance(reply, Response) else ""
            if text:
                written[place] = text
                return
            self.counts["not paraphrased"] += 1
            why = reply.cause if isinstance(reply, Failed) else "it is empty"
            replies.give(place, Failed(cause=f"{NO_PARAPHRASE}: {why}"))

        asked = []
        for place, conversation in enumerate(conversations):
            turn = last_user(conversation)
            if turn is None:
                keep(place, Failed(cause="no user turn"))
            else:
                asked.append((place, _question(conversation.messages[turn].content)))
        ask_some(self.paraphraser, asked, self.settings.max_tokens, keep)
        rewritten = [(place, _put(conversations[place], text)) for place, text in sorted(written.items())]
        ask_some(self.inner, rewritten, max_answer_tokens, replies.give)
        return replies.all()


def _question(text: str) -> Conversation:
    fence = fenced("text", fence_mark(text), text)
    return Conversation(messages=(Message(role="user", content=f"{_ASK}\n\n{fence}"),))


def _put(conversation: Conversation, text: str) -> Conversation:
    return with_last_user(conversation, lambda _: text)


DEFENCES = (
    InferenceDefence(
        id="paraphrase",
        title="Paraphrase",
        paper="Jain et al. 2023, arXiv 2309.00614",
        kind="wrapper",
        cost="one more call of up to 100 tokens",
        when_to_choose="optimised suffixes are the threat, and exact wording matters to no user",
        options=ParaphraseSettings,
        make=lambda inner, options, means: Paraphrase(inner, settings=options),
    ),
)
