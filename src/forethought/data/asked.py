"""A local model asked many requests in batches, each batch kept as soon as it is there: a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from forethought.records import Record, Request
from forethought.store import Store

if TYPE_CHECKING:
    from forethought.engine.conversation import Response
    from forethought.engine.local import LocalModel

_BATCH = 64


class Asked(Record):
    """What is kept of one response; subclasses say what."""

    request_id: str


Kept = TypeVar("Kept", bound=Asked)


def ask_all(
    model: LocalModel,
    requests: Sequence[Request],
    log: Path,
    kind: type[Kept],
    keep: Callable[[Request, Response], Kept],
    max_tokens: int,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, Kept]:
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
