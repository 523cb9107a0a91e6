"""Paraphrasing: the request is put into other words before the model sees it (Jain et al., arXiv 2309.00614).

A suffix that was optimised token by token rarely survives. Meaning may not survive either: measure capability, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from forethought.defences.base import Replies, Wrapper, ask_some, described, fenced_question, last_user, with_last_user
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.records import Record

NO_PARAPHRASE = "there is no paraphrase of the request"
_ASK = "Paraphrase the text between the tags. Keep its meaning, don't answer it, and write the paraphrase alone."


class ParaphraseSettings(Record):
    """How to paraphrase."""

    max_tokens: int = Field(default=100, ge=1, description="longest paraphrase, in tokens (the paper's 100)")


class Paraphrase(Wrapper):
    """A model that sees a paraphrase of the last user turn, written by itself or by another model."""

    Options = ParaphraseSettings

    def __init__(
        self, inner: Respondent, settings: ParaphraseSettings | None = None, paraphraser: Respondent | None = None
    ) -> None:
        super().__init__(inner, "paraphrase")
        self.settings = settings or ParaphraseSettings()
        self.paraphraser = paraphraser or inner

    def answer(self, conversations: Sequence[Conversation], max_answer_tokens: int, replies: Replies) -> None:
        """Without a paraphrase a conversation is Failed: the undefended request is never put."""
        rewritten: list[tuple[int, Conversation]] = []

        def keep(place: int, reply: Response | Failed) -> None:
            text = reply.answer.strip() if isinstance(reply, Response) else ""
            if text:
                rewritten.append((place, with_last_user(conversations[place], lambda _: text)))
            else:
                why = reply.cause if isinstance(reply, Failed) else "it is empty"
                replies.give(place, Failed(cause=f"{NO_PARAPHRASE}: {why}"))

        asked = []
        for place, conversation in enumerate(conversations):
            turn = last_user(conversation)
            if turn is None:
                keep(place, Failed(cause="no user turn"))
            else:
                asked.append((place, fenced_question(_ASK, turn.content)))
        ask_some(self.paraphraser, asked, self.settings.max_tokens, keep)
        ask_some(self.inner, sorted(rewritten, key=lambda one: one[0]), max_answer_tokens, replies.give)


DEFENCES = (described("paraphrase", Paraphrase),)
