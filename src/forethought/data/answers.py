"""The target model's own answers: to harmless requests for self-distillation, to harmful ones to be turned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.data.asked import Asked, ask_all, read_complete
from forethought.records import Request
from forethought.refusal import refusal_outcome

if TYPE_CHECKING:
    from forethought.engine.conversation import Response
    from forethought.engine.local import LocalModel


class OwnAnswer(Asked):
    """A model's own answer to a request."""

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
    return _complying(ask_all(model, requests, file, OwnAnswer, _kept, max_tokens, on_done).values(), requests)


def kept_answers(requests: Sequence[Request], file: Path) -> dict[str, str] | None:
    """What `own_answers` gives where every request was asked before, without a model; None where some was not."""
    known = {row.request_id: row for row in read_complete(file, OwnAnswer)}
    return _complying(known.values(), requests) if all(request.id in known for request in requests) else None


def _complying(known: Iterable[OwnAnswer], requests: Sequence[Request]) -> dict[str, str]:
    wanted = {request.id for request in requests}
    return {row.request_id: row.answer for row in known if row.complies and row.request_id in wanted}


def _kept(request: Request, response: Response) -> OwnAnswer:
    complies = refusal_outcome(response.answer)[0] == "complied"
    return OwnAnswer(request_id=request.id, answer=response.answer, complies=complies)
