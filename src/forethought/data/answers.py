"""A local model asked many requests in batches, each batch kept as soon as it is there: a stopped run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.records import AnyRecord, Record, Request
from forethought.refusal import refusal_outcome
from forethought.store import Store, read_store

if TYPE_CHECKING:
    from forethought.models.conversation import Response
    from forethought.models.local import LocalModel

_BATCH = 64


def ask_all(
    model: LocalModel,
    requests: Sequence[Request],
    log: Path,
    kind: type[AnyRecord],
    keep: Callable[[Request, Response], AnyRecord],
    max_tokens: int,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, AnyRecord]:
    """What `keep` makes of each response, by request id, rows of earlier calls included.

    Each batch is appended to `log`; a later call asks only for what the log lacks.
    `on_done(n)` reports requests, those of earlier calls first.
    """
    with Store(log, write=True) as store:
        known = store.records(kind)
        missing = sorted((r for r in requests if r.id not in known), key=lambda r: len(r.text))
        if on_done is not None:
            on_done(len(requests) - len(missing))
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            responses = model.respond([request.messages for request in batch], max_tokens)
            for request, response in zip(batch, responses, strict=True):
                known[request.id] = keep(request, response)
                store.add(request.id, known[request.id])
            if on_done is not None:
                on_done(len(batch))
    return known


# The target model's own answers: to harmless requests for self-distillation, to harmful ones to be turned from.
#
# Harmless requests that it refuses are its false refusals.

_ANSWER_TOKENS = 24
"""Enough of an answer to see whether it refuses."""


class OwnAnswer(Record):
    """A model's own answer to a request."""

    request_id: str
    answer: str
    complies: bool
    """False for an answer that refuses or is garbled: it is kept, so that it isn't asked for again, and not taught."""


def own_answers(
    model: LocalModel,
    requests: Sequence[Request],
    file: Path,
    max_tokens: int,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Answers by request id, without those that refuse or are garbled; kept in `file` batch by batch."""

    def keep(request: Request, response: Response) -> OwnAnswer:
        complies = refusal_outcome(response.answer)[0] == "complied"
        return OwnAnswer(request_id=request.id, answer=response.answer, complies=complies)

    return _complying(ask_all(model, requests, file, OwnAnswer, keep, max_tokens, on_done).values(), requests)


def kept_answers(requests: Sequence[Request], file: Path) -> dict[str, str] | None:
    """What `own_answers` gives where every request was asked before, without a model; None where some was not."""
    known = read_store(file, OwnAnswer)
    return _complying(known.values(), requests) if all(request.id in known for request in requests) else None


def _complying(known: Iterable[OwnAnswer], requests: Sequence[Request]) -> dict[str, str]:
    wanted = {request.id for request in requests}
    return {row.request_id: row.answer for row in known if row.complies and row.request_id in wanted}


class Outcome(Record):
    """What a model did with one harmless request."""

    request_id: str
    refused: bool | None
    """None is unscored."""


def false_refusals(
    model: LocalModel, requests: Sequence[Request], log: Path, on_done: Callable[[int], None] | None = None
) -> tuple[list[Request], Counter[str]]:
    """Harmless requests that the model refuses, by its verdict or by its answer; and counts of what it did.

    Outcomes are kept in `log` batch by batch. Requests not labelled harmless are left out and counted.
    """

    def keep(request: Request, response: Response) -> Outcome:
        outcome = "refused" if response.decision == "refuse" else refusal_outcome(response.answer)[0]
        return Outcome(request_id=request.id, refused=None if outcome is None else outcome == "refused")

    harmless = list({request.id: request for request in requests if request.harmful is False}.values())
    known = ask_all(model, harmless, log, Outcome, keep, _ANSWER_TOKENS, on_done)
    counts = Counter({"refused": 0, "answered": 0, "unscored": 0})
    names = {True: "refused", False: "answered", None: "unscored"}
    counts.update(names[known[request.id].refused] for request in harmless)
    if left_out := sum(request.harmful is not False for request in requests):
        counts["not labelled harmless"] = left_out
    return [request for request in harmless if known[request.id].refused], counts
