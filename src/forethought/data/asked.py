"""A local model asked many requests in batches, each batch kept as soon as it is there: a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from forethought.records import AnyRecord, Record, Request, cut_half_line, read_jsonl

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
    known = {row.request_id: row for row in read_complete(log, kind)}
    missing = sorted((r for r in requests if r.id not in known), key=lambda r: len(r.text))
    if on_done is not None:
        on_done(len(requests) - len(missing))
    log.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(missing), _BATCH):
        batch = missing[start : start + _BATCH]
        responses = model.respond([request.messages for request in batch], max_tokens)
        with log.open("a", encoding="utf-8") as file:
            for request, response in zip(batch, responses, strict=True):
                known[request.id] = keep(request, response)
                file.write(known[request.id].model_dump_json() + "\n")
        if on_done is not None:
            on_done(len(batch))
    return known


def read_complete(file: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """The rows of a log that is appended to; a last line that a kill cut short is removed, to be asked for again."""
    if not file.is_file():
        return []
    cut_half_line(file)
    return list(read_jsonl(file, kind))
