"""SmoothLLM: answers to several randomly perturbed copies of the request, and a vote (Robey et al., arXiv 2310.03684).

Attacks that are optimised letter by letter break under perturbation; the request's meaning mostly does not.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from forethought.defences.base import Replies, Wrapper, ask_some, conversation_key, described, refuses, with_last_user
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.records import Record

Perturbation = Literal["swap", "insert", "patch"]
UNREADABLE = "no perturbed copy got an answer that can be read"
_LETTERS = string.ascii_letters + string.digits + string.punctuation + " "


class SmoothSettings(Record):
    """How to smooth."""

    copies: int = Field(default=10, ge=1, le=100, description="perturbed copies of a request")
    percent: float = Field(default=10.0, gt=0, le=100, description="share of characters perturbed, in percent")
    perturbation: Perturbation = Field(default="swap", description="swap, insert or patch")
    seed: int = Field(default=0, description="seed of what is drawn")


def perturb(text: str, kind: Perturbation, percent: float, rng: random.Random) -> str:
    """The text with a share of its characters (at least one) swapped for or followed by random ones.

    `swap` and `insert` draw places all over it, `patch` overwrites one block.
    """
    if not text:
        return text
    count = max(1, int(len(text) * percent / 100))
    letters = list(text)
    if kind == "patch":
        start = rng.randint(0, len(text) - count)
        places = list(range(start, start + count))
    else:
        places = sorted(rng.sample(range(len(text)), count))
    for place in places:
        drawn = rng.choice(_LETTERS)
        letters[place] = letters[place] + drawn if kind == "insert" else drawn
    return "".join(letters)


class SmoothLLM(Wrapper):
    """A model whose answer is the majority's over perturbed copies of the last user turn."""

    Options = SmoothSettings

    def __init__(self, inner: Respondent, settings: SmoothSettings | None = None) -> None:
        super().__init__(inner, "smooth_llm")
        self.refuses_from = None
        self.settings = settings or SmoothSettings()

    def copies(self, conversation: Conversation) -> list[Conversation]:
        """The perturbed copies; the same for the same conversation and seed."""
        chosen = self.settings
        rng = random.Random(f"{chosen.seed}:smooth:{conversation_key(conversation)}")
        return [
            with_last_user(conversation, lambda text: perturb(text, chosen.perturbation, chosen.percent, rng))
            for _ in range(chosen.copies)
        ]

    def answer(self, conversations: Sequence[Conversation], max_answer_tokens: int, replies: Replies) -> None:
        """A conversation is told as soon as its last copy is answered."""
        n = self.settings.copies
        found: list[dict[int, Response | Failed]] = [{} for _ in conversations]
        asked = [
            (place * n + number, copy)
            for place, conversation in enumerate(conversations)
            for number, copy in enumerate(self.copies(conversation))
        ]

        def give(number: int, reply: Response | Failed) -> None:
            place = number // n
            found[place][number % n] = reply
            if len(found[place]) == n:
                in_order = [found[place][copy] for copy in range(n)]
                replies.give(place, self._vote(conversations[place], in_order))

        ask_some(self.inner, asked, max_answer_tokens, give)

    def _vote(self, conversation: Conversation, copies: Sequence[Response | Failed]) -> Response | Failed:
        """A response of the majority, drawn at random; a tie refuses. Copies that failed or say nothing don't vote.

        The score is ln((refusals + 1/2) / (compliances + 1/2)).
        """
        answered = [reply for reply in copies if isinstance(reply, Response)]
        if not answered:
            return copies[0]
        refusing = [reply for reply in answered if refuses(reply) is True]
        complying = [reply for reply in answered if refuses(reply) is False]
        if not refusing and not complying:
            return answered[0].model_copy(update={"log_odds": None, "cause": answered[0].cause or UNREADABLE})
        # The paper's strict majority: more than half of the copies have to be answered for an answer.
        refused = len(complying) <= len(refusing)
        rng = random.Random(f"{self.settings.seed}:vote:{conversation_key(conversation)}")
        chosen = rng.choice(refusing if refused else complying)
        score = math.log((len(refusing) + 0.5) / (len(complying) + 0.5))
        return chosen.model_copy(update={"log_odds": score})


DEFENCES = (described("smooth_llm", SmoothLLM),)
