"""A message that holds forged turns or thoughts is put to the model by its own parts as well.

A forgery shifts what a model thinks of the whole, whatever is asked. The request inside it is read as well by itself:
a message is refused where one of its parts is. A message without markers costs nothing more.

A message can be written as if turns of the assistant or a finished thought were part of it (ChatBug: Jiang et al.
2024, arXiv 2406.12935; H-CoT: Kuo et al. 2025, arXiv 2502.12893). The markers of the common chat templates and thought
tags are known, whatever model reads them: a forgery for another template confuses as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from forethought.defences.base import Asked, Steps, Wrapper, described, refuses
from forethought.models.conversation import Conversation, Failed, Response
from forethought.reasoning import markers
from forethought.records import Message, Record

PART_REFUSED = "a part of the message is refused by itself: forged turns or thoughts stand around it"
_CONTROL = r"<[|\uff5c][^<>|\uff5c\n]{1,40}[|\uff5c]>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
_HEADINGS = "|".join(re.escape(heading) for heading in markers("paper"))
_NAMES = r"user|human|assistant|model|ai|system"
_MARKER = re.compile(
    rf"(?P<thought></?think(?:ing)?>|^(?:{_HEADINGS})[ \t]*$)"
    rf"|(?P<control>(?:(?:{_CONTROL})\s*)+)(?P<role>(?:{_NAMES})\b[ \t]*(?:\n|(?:{_CONTROL})\s*|$))?"
    rf"|^[ \t]*(?P<heading>{_NAMES})[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_ASSISTANT = re.compile(r"assistant|model|\bai\b|\[/INST\]", re.IGNORECASE)


def own_parts(text: str, least_words: int = 3, most: int = 8) -> tuple[str, ...]:
    """The parts of a message outside forged thoughts and forged turns of the assistant; none without any marker.

    Whose a part is where a marker doesn't say so is taken for the user's. Parts of fewer than `least_words` words are
    left out, those beyond `most` stand together in the last.
    """
    parts: list[str] = []
    own, start = True, 0
    for marker in _MARKER.finditer(text):
        if own:
            parts.append(text[start : marker.start()])
        start = marker.end()
        # What follows a closed thought is a forged answer.
        own = not marker["thought"] and not _ASSISTANT.search(marker[0])
    if not start:
        return ()
    if own:
        parts.append(text[start:])
    found = [part.strip() for part in parts if len(part.split()) >= least_words]
    return (*found[: most - 1], "\n\n".join(found[most - 1 :])) if len(found) > most else tuple(found)


class UnforgedSettings(Record):
    """Which parts are read."""

    words: int = Field(default=3, ge=1, description="least words of a part: shorter ones are no request")
    parts: int = Field(default=8, ge=1, description="most parts of a message; what is left stands together in the last")


class Unforged(Wrapper):
    """A model that is asked by parts where a message holds what is not its user's."""

    label, Options = "unforged", UnforgedSettings
    options: UnforgedSettings

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """`log_odds` is the largest of the whole and its parts. Where a part can't be asked the message has failed."""
        whole = yield from self.ask(conversation, max_answer_tokens)
        parts = self._parts(conversation)
        if isinstance(whole, Failed) or not parts:
            return whole
        heard = yield Asked(self.inner.reply, parts, max_answer_tokens)
        return _together(whole, heard)

    def _parts(self, conversation: Conversation) -> list[Conversation]:
        """The conversation up to each turn of the user that holds a forgery, with each of its own parts in its place.

        Nothing is begun for the model there: that is part of the whole.
        """
        found = []
        for place, message in enumerate(conversation.messages):
            if message.role == "user":
                for part in own_parts(message.content, self.options.words, self.options.parts):
                    messages = (*conversation.messages[:place], Message(role="user", content=part))
                    found.append(conversation.model_copy(update={"messages": messages, "prefill": ""}))
        return found


def _together(whole: Response, parts: Sequence[Response | Failed]) -> Response | Failed:
    """The reply to the whole, or that to the part that is refused with the highest score."""
    read = [reply for reply in parts if isinstance(reply, Response)]
    if len(read) < len(parts):
        return next(reply for reply in parts if isinstance(reply, Failed))
    scores = [reply.log_odds for reply in (whole, *read) if reply.log_odds is not None]
    score = {"log_odds": max(scores)} if scores else {}
    refused = [reply for reply in read if _refused(reply)]
    if _refused(whole) or not refused:
        return whole.model_copy(update=score)
    worst = max(refused, key=lambda reply: float("-inf") if reply.log_odds is None else reply.log_odds)
    return worst.model_copy(update={**score, "cause": PART_REFUSED})


def _refused(response: Response) -> bool:
    """By its decision, or where it takes none by its words."""
    return response.decision == "refuse" if response.decision is not None else refuses(response) is True


DEFENCES = (described("unforged", Unforged),)
