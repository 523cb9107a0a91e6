"""Mined false refusals: harmless requests that a model refuses, to be fed back as contrast data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from forethought.data.answers import read_complete
from forethought.engine.local import LocalModel, Response
from forethought.records import Record, Request
from forethought.refusal import refusal_outcome

_BATCH = 64
_ANSWER_TOKENS = 24
"""Enough of an answer to see whether it refuses."""


class Asked(Record):
    """What a model did with one harmless request."""

    request_id: str
    refused: bool | None
    """None is unscored."""


def false_refusals(
    model: LocalModel, requests: Sequence[Request], log: Path, on_done: Callable[[int], None] | None = None
) -> tuple[list[Request], Counter[str]]:
    """Harmless requests that the model refuses, by its verdict or by its answer; and counts of what it did.

    Each batch is appended to `log` when it is done; a later call asks only for what the log
    lacks. Requests not labelled harmless are left out and counted.
    """
    harmless = list({request.id: request for request in requests if request.harmful is False}.values())
    known = {row.request_id: row.refused for row in read_complete(log, Asked)}
    missing = sorted((r for r in harmless if r.id not in known), key=lambda r: len(r.text))
    if on_done is not None:
        on_done(len(harmless) - len(missing))
    log.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(missing), _BATCH):
        batch = missing[start : start + _BATCH]
        responses = model.respond([request.messages for request in batch], _ANSWER_TOKENS)
        with log.open("a", encoding="utf-8") as file:
            for request, response in zip(batch, responses, strict=True):
                known[request.id] = _refused(response)
                file.write(Asked(request_id=request.id, refused=known[request.id]).model_dump_json() + "\n")
        if on_done is not None:
            on_done(len(batch))
    counts = Counter({"refused": 0, "answered": 0, "unscored": 0})
    names = {True: "refused", False: "answered", None: "unscored"}
    counts.update(names[known[request.id]] for request in harmless)
    if left_out := sum(request.harmful is not False for request in requests):
        counts["not labelled harmless"] = left_out
    return [request for request in harmless if known[request.id]], counts


def _refused(response: Response) -> bool | None:
    if response.decision == "refuse":
        return True
    outcome = refusal_outcome(response.answer)[0]
    return None if outcome is None else outcome == "refused"
