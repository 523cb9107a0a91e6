"""What thinks and answers behind the server: weights in this process, or servers upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from forethought.policy import Policy
from forethought.server.records import Asked, Options, Piece, Verdict


class Engine(Protocol):
    """Thinks first, then answers. Both may be awaited by many requests at once; a cancelled one frees its place."""

    name: str
    policy: Policy
    special: tuple[str, ...]
    """Control tokens of the model: none of them may stand in a conversation's text."""
    markers: tuple[str, str]
    """What opens and what closes a thought: neither may stand in an answer."""

    def check(self, options: Options) -> None:
        """Raises InputError for what no answer can follow, before anything is thought or sent."""
        ...

    async def think(self, asked: Asked) -> Verdict:
        """The verdict on a conversation, with the refusal where it refuses.

        Raises InputError for a conversation that the model can't be given (its template, its context), ModelError
        where the model can't be asked at all.
        """
        ...

    def answer(self, asked: Asked, verdict: Verdict, options: Options) -> AsyncIterator[Piece]:
        """The answer to a conversation whose verdict is to comply, piece by piece; the last piece says why it ended."""
        ...

    async def rule_shares(self, asked: Asked) -> dict[str, float]:
        """How likely each rule is the one that is broken, where one is; empty where nothing tells."""
        ...

    async def ready(self) -> str:
        """Empty where requests can be taken, else why not."""
        ...

    async def close(self) -> None:
        """Ends it: what is under way is answered first."""
        ...
