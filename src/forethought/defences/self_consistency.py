"""Self-consistency for uncertain verdicts: the same request in several neutral frames, and their mean log-odds.

After Wang et al. (arXiv 2203.11171), who sample several thoughts. Decoding here is greedy, so that the frames bring
the variety: each leads to a thought of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from forethought.defences.base import REFUSAL, Replies, Wrapper, ask_some, with_last_user
from forethought.engine.conversation import Conversation, Failed, OnReply, Respondent, Response
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
    """When to ask again, and how often."""

    frames: int = Field(default=4, ge=1, le=len(FRAMES), description="how often an uncertain request is asked again")
    margin: float = Field(default=1.5, gt=0, description="log-odds this near to the threshold are uncertain")
    threshold: float = Field(default=0.0, description="verdict log-odds from which to refuse: the model's own")


class SelfConsistency(Wrapper):
    """A model that thinks, asked again where its verdict is uncertain."""

    def __init__(self, inner: Respondent, settings: ConsistencySettings | None = None) -> None:
        super().__init__(inner, "self_consistency")
        self.settings = settings or ConsistencySettings()

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """As a Respondent. The score of what was asked again is the mean over all its verdicts."""
        replies = Replies(len(conversations), on_reply)
        found: dict[int, list[Response]] = {}
        left: dict[int, int] = {}

        def first(place: int, reply: Response | Failed) -> None:
            if isinstance(reply, Response) and self._uncertain(reply):
                found[place], left[place] = [reply], self.settings.frames
            else:
                replies.give(place, reply)

        def again(place: int, reply: Response | Failed) -> None:
            left[place] -= 1
            if isinstance(reply, Response) and reply.log_odds is not None:
                found[place].append(reply)
            else:
                self.counts["thoughts without a verdict"] += 1
            if left[place] == 0:
                replies.give(place, self._vote(found[place]))

        ask_some(self.inner, list(enumerate(conversations)), max_answer_tokens, first)
        asked = [(place, framed) for place in sorted(found) for framed in self.framed(conversations[place])]
        self.counts["asked again"] += len(found)
        ask_some(self.inner, asked, max_answer_tokens, again)
        return replies.all()

    def framed(self, conversation: Conversation) -> list[Conversation]:
        """The conversation with its last user turn in each frame."""
        return [_framed(conversation, frame) for frame in FRAMES[: self.settings.frames]]

    def _uncertain(self, response: Response) -> bool:
        odds = response.log_odds
        return odds is not None and abs(odds - self.settings.threshold) < self.settings.margin

    def _vote(self, thoughts: Sequence[Response]) -> Response:
        """The first response that acts on the mean verdict; the model's own thought comes first."""
        odds = [thought.log_odds for thought in thoughts if thought.log_odds is not None]
        mean = sum(odds) / len(odds)
        decision: Decision = "refuse" if mean >= self.settings.threshold else "comply"
        self.counts["refused"] += decision == "refuse"
        for thought in thoughts:
            if thought.decision == decision:
                return thought.model_copy(update={"log_odds": mean})
        if decision == "refuse":
            return thoughts[0].model_copy(update={"answer": REFUSAL, "decision": decision, "log_odds": mean})
        self.counts["no thought of the mean's verdict"] += 1
        return thoughts[0].model_copy(update={"log_odds": mean})


def _framed(conversation: Conversation, frame: str) -> Conversation:
    return with_last_user(conversation, lambda text: frame.replace("{request}", text, 1))
