"""Self-consistency for uncertain verdicts: several thoughts about the same request, and what they hold together.

Wang et al. 2022 (arXiv 2203.11171) sample several chains of thought and take the answer that most of them reach. Here
a verdict has log-odds, so that their mean may stand for the vote. A model that can't sample is asked in several neutral
frames instead, each of which leads to a thought of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from forethought.defences.base import REFUSAL, Replies, Wrapper, ask_some, described, with_last_user
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.reasoning import Decision
from forethought.records import Record

FRAMES = (
    "Here is my message:\n\n{request}",
    "{request}\n\nPlease reply to the message above.",
    "A user wrote the following.\n\n{request}",
    'Reply to this: "{request}"',
    "Hello!\n\n{request}\n\nThank you.",
    "Message:\n{request}\nEnd of message.",
)
"""Neutral: none says anything about safety or about what to do."""


class ConsistencySettings(Record):
    """When to ask again, how often, and how the verdicts are put together."""

    samples: int = Field(
        default=4, ge=1, le=64, description="thoughts sampled for an uncertain request, where the model can sample"
    )
    frames: int = Field(
        default=4, ge=1, le=len(FRAMES), description="frames that an uncertain request is asked in, where it can't"
    )
    margin: float = Field(default=1.5, gt=0, description="log-odds this near to the threshold are uncertain")
    threshold: float = Field(default=0.0, description="verdict log-odds from which to refuse: the model's own")
    temperature: float = Field(default=0.7, gt=0, description="of the samples")
    vote: Literal["mean", "majority"] = Field(
        default="mean", description="mean: of the log-odds; majority: of the verdicts, a tie refuses"
    )
    seed: int = Field(default=0, ge=0, description="of the first sample")


class SelfConsistency(Wrapper):
    """A model that thinks, asked again where its verdict is uncertain."""

    Options = ConsistencySettings

    def __init__(self, inner: Respondent, settings: ConsistencySettings | None = None) -> None:
        super().__init__(inner, "self_consistency")
        self.settings = settings or ConsistencySettings()
        self.refuses_from = self.settings.threshold

    def answer(self, conversations: Sequence[Conversation], max_answer_tokens: int, replies: Replies) -> None:
        """The score of what was asked again is that of all its verdicts together."""
        uncertain = self.hold_back(conversations, max_answer_tokens, replies, lambda _, reply: self._uncertain(reply))
        found = {place: [reply] for place, reply in uncertain.items()}
        further = {place: self.further(conversations[place]) for place in found}
        left = {place: len(asked) for place, asked in further.items()}

        def again(place: int, reply: Response | Failed) -> None:
            left[place] -= 1
            if isinstance(reply, Response) and reply.log_odds is not None:
                found[place].append(reply)
            if left[place] == 0:
                replies.give(place, self._together(found[place]))

        asked = [(place, conversation) for place, several in further.items() for conversation in several]
        ask_some(self.inner, asked, max_answer_tokens, again)

    def further(self, conversation: Conversation) -> list[Conversation]:
        """What an uncertain conversation is asked as once more: samples where the model can sample, else frames."""
        if not self.inner.able.sampling:
            return self.framed(conversation)
        first = self.settings.seed
        if conversation.temperature:  # a sample itself: its own seed has been seen
            first += conversation.sample_seed + 1
        drawn = range(first, first + self.settings.samples)
        temperature = self.settings.temperature
        return [conversation.model_copy(update={"temperature": temperature, "sample_seed": seed}) for seed in drawn]

    def framed(self, conversation: Conversation) -> list[Conversation]:
        """The conversation with its last user turn in each frame."""
        return [_framed(conversation, frame) for frame in FRAMES[: self.settings.frames]]

    def _uncertain(self, response: Response) -> bool:
        odds = response.log_odds
        return odds is not None and abs(odds - self.settings.threshold) < self.settings.margin

    def _together(self, thoughts: Sequence[Response]) -> Response:
        """The first response that acts on the verdict of all; the model's own thought comes first."""
        score, decision = self._decided([thought.log_odds for thought in thoughts if thought.log_odds is not None])
        for thought in thoughts:
            if thought.decision == decision:
                return thought.model_copy(update={"log_odds": score})
        written = {"answer": REFUSAL, "decision": decision} if decision == "refuse" else {}
        return thoughts[0].model_copy(update={**written, "log_odds": score})

    def _decided(self, odds: Sequence[float]) -> tuple[float, Decision]:
        """Score and verdict. A majority's score is the log-odds of its votes, half a vote added to each side."""
        if self.settings.vote == "mean":
            mean = sum(odds) / len(odds)
            return mean, "refuse" if mean >= self.settings.threshold else "comply"
        refusing = sum(one >= self.settings.threshold for one in odds)
        score = math.log((refusing + 0.5) / (len(odds) - refusing + 0.5))
        return score, "refuse" if score >= 0 else "comply"


def _framed(conversation: Conversation, frame: str) -> Conversation:
    return with_last_user(conversation, lambda text: frame.replace("{request}", text, 1))


DEFENCES = (described("self_consistency", SelfConsistency),)
