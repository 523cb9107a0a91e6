"""Self-distillation: the target model's own answers to harmless requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.data.asked import Asked, ask_all
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
    known = ask_all(model, requests, file, OwnAnswer, _kept, max_tokens, on_done)
    wanted = {request.id for request in requests}
    return {row.request_id: row.answer for row in known.values() if row.complies and row.request_id in wanted}


def _kept(request: Request, response: Response) -> OwnAnswer:
    complies = refusal_outcome(response.answer)[0] == "complied"
    return OwnAnswer(request_id=request.id, answer=response.answer, complies=complies)
