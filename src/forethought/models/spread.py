"""One model held by many workers of a Ray cluster, as something that conversations can be put to.

The same conversations are decoded side by side as on one machine, so that replies are the same to the last digit,
whatever the number of workers and their order. What no worker could answer has failed with its cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from forethought.cluster.holders import Done, Holders, Lost, Say
from forethought.errors import StageError
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response

if TYPE_CHECKING:
    from forethought.models.hidden_states import States

_BLOCK = 256
"""Most conversations of a block where each is alone: a server has as many calls at once as it takes."""
_SHARES = 4
"""Blocks a worker that are asked for at once: those who are quick take more of them."""


class Spread:
    """A Respondent, whose replies are those of `opened`, which each worker makes for itself."""

    def __init__(self, on: str, opened: Callable[[], Any], most: int | None = None, gpus: float | None = None) -> None:
        """`opened` gives what has a `respondent`. At most `most` workers with `gpus` hold one, else as many as fit.

        Raises what it raises, and ConfigError and ModelError as `connect`.
        """
        self.workers = Holders(on, opened, gpus=gpus, most=most)
        about: tuple[str, Able, float | None] = self.workers.one(_about)
        self.name, self._able, self.refuses_from = about

    @property
    def able(self) -> Able:
        """What the model can do, but log-probabilities: those are read where the weights are."""
        return self._able.model_copy(update={"log_probs": False, "beside": _SHARES * self.workers.room})

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """As the model's own; raises where no worker can ask it."""
        replies: dict[int, Response | Failed] = {}

        def keep(place: int, reply: Response | Failed) -> None:
            if place not in replies:
                replies[place] = reply
                if on_reply is not None:
                    on_reply(place, reply)

        def left(block: Sequence[tuple[int, Conversation]]) -> Sequence[tuple[int, Conversation]]:
            return block if self._able.together else [one for one in block if one[0] not in replies]

        step = self._able.together or min(_BLOCK, 1 + len(conversations) // (_SHARES * self.workers.room))
        numbered = list(enumerate(conversations))
        blocks = (numbered[start : start + step] for start in range(0, len(numbered), step))
        for block, said in self.workers.each(partial(_ask, max_answer_tokens), blocks, left):
            if isinstance(said, Lost):
                for place, _ in block:
                    keep(place, Failed(cause=said.cause))
            elif not isinstance(said, Done):
                keep(*said)
        return [replies[place] for place in range(len(conversations))]

    def close(self) -> None:
        """Lets go of the workers; the next conversation starts some anew."""
        self.workers.close()


def _about(held: Any, _: None, say: Say) -> None:
    asked = held.respondent
    say((asked.name, asked.able, getattr(asked, "refuses_from", None)))


def _ask(max_answer_tokens: int, held: Any, block: Sequence[tuple[int, Conversation]], say: Say) -> None:
    def told(place: int, reply: Response | Failed) -> None:
        said.add(place)
        say((block[place][0], reply))

    said: set[int] = set()
    replies = held.respondent.reply([conversation for _, conversation in block], max_answer_tokens, told)
    for place, reply in enumerate(replies):  # for those who tell only at the end
        if place not in said:
            told(place, reply)


def states_in_order(
    holders: Holders, chunks: Sequence[Sequence[Sequence[int]]], layers: Sequence[int], trained: bool
) -> Iterator[dict[int, States]]:
    """Of each chunk of prompts what `hidden_states.last_states` reads of the model that workers hold, in order.

    Raises StageError for a chunk that every worker was lost with.
    """
    found: dict[int, dict[int, States]] = {}
    next_one = 0
    for (number, _), said in holders.each(partial(_states, layers, trained), enumerate(chunks)):
        if isinstance(said, Lost):
            raise StageError("hidden states", said.cause, "Run it again")
        if not isinstance(said, Done):
            found[number] = said
        while next_one in found:
            yield found.pop(next_one)
            next_one += 1


def _states(
    layers: Sequence[int], trained: bool, held: Any, block: tuple[int, Sequence[Sequence[int]]], say: Say
) -> None:
    from forethought.models.hidden_states import last_states  # torch takes seconds

    say(last_states(held.local, block[1], layers, trained))
