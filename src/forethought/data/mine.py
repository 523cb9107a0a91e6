"""Mined false refusals: harmless requests that a model refuses, to be fed back as contrast data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.data.asked import Asked, ask_all
from forethought.records import Request
from forethought.refusal import refusal_outcome

if TYPE_CHECKING:
    from forethought.engine.conversation import Response
    from forethought.engine.local import LocalModel

_ANSWER_TOKENS = 24
"""Enough of an answer to see whether it refuses."""


class Outcome(Asked):
    """What a model did with one harmless request."""

    refused: bool | None
    """None is unscored."""


def false_refusals(
    model: LocalModel, requests: Sequence[Request], log: Path, on_done: Callable[[int], None] | None = None
) -> tuple[list[Request], Counter[str]]:
    """Harmless requests that the model refuses, by its verdict or by its answer; and counts of what it did.

    Outcomes are kept in `log` batch by batch. Requests not labelled harmless are left out and counted.
    """
    harmless = list({request.id: request for request in requests if request.harmful is False}.values())
    known = ask_all(model, harmless, log, Outcome, _kept, _ANSWER_TOKENS, on_done)
    counts = Counter({"refused": 0, "answered": 0, "unscored": 0})
    names = {True: "refused", False: "answered", None: "unscored"}
    counts.update(names[known[request.id].refused] for request in harmless)
    if left_out := sum(request.harmful is not False for request in requests):
        counts["not labelled harmless"] = left_out
    return [request for request in harmless if known[request.id].refused], counts


def _kept(request: Request, response: Response) -> Outcome:
    if response.decision == "refuse":
        return Outcome(request_id=request.id, refused=True)
    outcome = refusal_outcome(response.answer)[0]
    return Outcome(request_id=request.id, refused=None if outcome is None else outcome == "refused")
