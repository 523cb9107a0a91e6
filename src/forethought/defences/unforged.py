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

from forethought.defences.base import InferenceDefence, Replies, Wrapper, ask_some, refuses
from forethought.models.conversation import Conversation, Failed, OnReply, Respondent, Response
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

    def __init__(self, inner: Respondent, settings: UnforgedSettings | None = None) -> None:
        super().__init__(inner, "unforged")
        self.settings = settings or UnforgedSettings()

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """As a Respondent; `log_odds` is the largest of the whole and its parts.

        Counts `forged` messages, and those `refused` by a part. Where a part can't be asked the message has failed.
        """
        replies = Replies(len(conversations), on_reply)
        parts = {place: found for place, one in enumerate(conversations) if (found := self._parts(one))}
        self.counts["forged"] += len(parts)
        wholes: dict[int, Response | Failed] = {}
        heard: dict[int, list[Response | Failed]] = {place: [] for place in parts}

        def of_whole(place: int, reply: Response | Failed) -> None:
            if place in parts:
                wholes[place] = reply
            else:
                replies.give(place, reply)

        ask_some(self.inner, list(enumerate(conversations)), max_answer_tokens, of_whole)
        asked = [(place, part) for place, found in parts.items() for part in found]
        ask_some(self.inner, asked, max_answer_tokens, lambda place, reply: heard[place].append(reply))
        for place in parts:
            replies.give(place, self._together(wholes[place], heard[place]))
        return replies.all()

    def _parts(self, conversation: Conversation) -> list[Conversation]:
        """The conversation up to each turn of the user that holds a forgery, with each of its own parts in its place.

        Nothing is begun for the model there: that is part of the whole.
        """
        found = []
        for place, message in enumerate(conversation.messages):
            if message.role == "user":
                for part in own_parts(message.content, self.settings.words, self.settings.parts):
                    messages = (*conversation.messages[:place], Message(role="user", content=part))
                    found.append(conversation.model_copy(update={"messages": messages, "prefill": ""}))
        return found

    def _together(self, whole: Response | Failed, parts: Sequence[Response | Failed]) -> Response | Failed:
        """The reply to the whole, or that to the part that is refused with the highest score."""
        failed = [reply for reply in (whole, *parts) if isinstance(reply, Failed)]
        if failed:
            self.counts["failed"] += 1
            return failed[0]
        said = [reply for reply in (whole, *parts) if isinstance(reply, Response)]
        scores = [reply.log_odds for reply in said if reply.log_odds is not None]
        score = {"log_odds": max(scores)} if scores else {}
        refused = [reply for reply in said[1:] if _refused(reply)]
        if _refused(said[0]) or not refused:
            return said[0].model_copy(update=score)
        self.counts["refused"] += 1
        worst = max(refused, key=lambda reply: float("-inf") if reply.log_odds is None else reply.log_odds)
        return worst.model_copy(update={**score, "cause": PART_REFUSED})


def _refused(response: Response) -> bool:
    """By its decision, or where it takes none by its words."""
    return response.decision == "refuse" if response.decision is not None else refuses(response) is True


DEFENCES = (
    InferenceDefence(
        id="unforged",
        title="Forged turns taken apart",
        paper="ours, against Jiang et al. 2024, arXiv 2406.12935",
        kind="wrapper",
        cost="one more call for each part of a message that holds forged turns or thoughts; else nothing",
        when_to_choose="users write the whole prompt, control tokens and thought tags included",
        score="the inner defence's, the largest of the whole and its parts",
        options=UnforgedSettings,
        make=lambda inner, options, means: Unforged(inner, options),
    ),
)
