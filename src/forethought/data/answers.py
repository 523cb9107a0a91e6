"""Self-distillation: the target model's own answers to harmless requests, batched and resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forethought.engine.local import LocalModel
from forethought.records import AnyRecord, Record, Request, read_jsonl
from forethought.refusal import refusal_outcome

_BATCH = 64


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
    """Answers by request id, without those that refuse or are garbled.

    Each batch is appended to `file` as soon as it is there; a later call asks only for
    what the file lacks. `on_done(n)` reports answers, kept ones included.
    """
    known = {row.request_id: row for row in read_complete(file, OwnAnswer)}
    missing = sorted((r for r in requests if r.id not in known), key=lambda r: len(r.text))
    if on_done is not None:
        on_done(len(requests) - len(missing))
    file.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(missing), _BATCH):
        batch = missing[start : start + _BATCH]
        responses = model.respond([request.messages for request in batch], max_tokens)
        with file.open("a", encoding="utf-8") as out:
            for request, response in zip(batch, responses, strict=True):
                complies = refusal_outcome(response.answer)[0] == "complied"
                row = OwnAnswer(request_id=request.id, answer=response.answer, complies=complies)
                known[request.id] = row
                out.write(row.model_dump_json() + "\n")
        if on_done is not None:
            on_done(len(batch))
    wanted = {request.id for request in requests}
    return {row.request_id: row.answer for row in known.values() if row.complies and row.request_id in wanted}


def read_complete(file: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """The rows of a log that is appended to; a last line that a kill cut short is removed, to be asked for again."""
    if not file.is_file():
        return []
    content = file.read_bytes()  # the cut may fall inside a character
    if not content.endswith(b"\n"):
        file.write_bytes(content[: content.rfind(b"\n") + 1])
    return list(read_jsonl(file, kind))
