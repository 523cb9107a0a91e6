"""Judged attempts as one table without a word of text: no request, no thought, and no answer.

Answers to the package's own short questions are the exception. Ids are content hashes, by which somebody who
has the requests can join them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from forethought.attempts.plan import CAPABILITY, right_answers
from forethought.attempts.records import Attempt, Judged
from forethought.errors import InputError
from forethought.models.conversation import Response
from forethought.reasoning import Finding, SafetyReasoning

LOG, CELLS = "attempts.parquet", "cells.jsonl"
"""The table, and beside it a line for each cell of the sweep: what else it came to."""
SCHEMA = pa.schema(
    [
        ("defence", pa.dictionary(pa.int32(), pa.string())),
        ("base", pa.dictionary(pa.int32(), pa.string())),
        ("seed", pa.int32()),
        ("budget", pa.int32()),
        ("attack", pa.dictionary(pa.int32(), pa.string())),
        ("cells", pa.list_(pa.string())),
        ("attempt", pa.string()),
        ("seed_request", pa.string()),  # the cluster of intervals: equal for all disguises of one request
        ("harmful", pa.bool_()),
        ("rules", pa.list_(pa.string())),
        ("refused", pa.bool_()),  # null: unscored
        ("right", pa.bool_()),  # of short questions alone
        ("answer", pa.string()),  # likewise
        ("unscored_cause", pa.string()),
        ("decision", pa.string()),
        ("log_odds", pa.float64()),
        ("rules_named", pa.list_(pa.string())),
        ("reasoning_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("decoded", pa.bool_()),  # of requests that have to be solved alone
    ]
)
"""Columns, null where there is nothing to say."""
PLACE = ("defence", "base", "seed", "budget")
"""The columns that say whose attempt a line is."""
_NO_RESPONSE = "no response"


def row_of(place: tuple[str, str, int, int], one: Judged) -> dict[str, Any]:
    """A judged attempt as a line of the table; `place` is what `PLACE` names."""
    attempt, said = one.attempt, one.response
    row = {
        **dict(zip(PLACE, place, strict=True)),
        "attack": attempt.attack,
        "cells": list(attempt.cells),
        "attempt": attempt.asked,
        "seed_request": attempt.request.seed_id,
        "harmful": attempt.request.harmful,
        "rules": list(attempt.request.rules),
        "refused": one.refused,
        "decoded": one.decoded,
    }
    if said is None:  # why a model failed may name its server
        return row | {"unscored_cause": _NO_RESPONSE}
    if CAPABILITY in attempt.cells:
        row |= {"right": right_answers([one])[0], "answer": said.answer}
    return row | {
        "unscored_cause": one.cause or None,
        "decision": said.decision,
        "log_odds": said.log_odds,
        # None where there is neither a thought nor a defence that named a rule.
        "rules_named": None if said.reasoning is None and not said.named else list(said.rules_named),
        "reasoning_tokens": said.reasoning_tokens,
        "answer_tokens": said.answer_tokens,
    }


def judged_of(attempt: Attempt, row: Mapping[str, Any]) -> Judged:
    """The judged attempt that a line holds."""
    if row["unscored_cause"] == _NO_RESPONSE:
        return Judged(attempt=attempt, response=None, refused=row["refused"], cause=_NO_RESPONSE)
    named, decision = row["rules_named"], row["decision"]
    read = None
    if named is not None and decision is not None:
        findings = tuple(Finding(rule=rule, violated=True) for rule in named)
        read = SafetyReasoning(intent="", findings=findings, verdict=decision)
    response = Response(
        reasoning=read, answer=row["answer"] or "", decision=decision, log_odds=row["log_odds"],
        named=tuple(named) if named is not None and read is None else (),
        reasoning_tokens=row["reasoning_tokens"] or 0, answer_tokens=row["answer_tokens"] or 0,
    )  # fmt: skip
    return Judged(
        attempt=attempt, response=response, refused=row["refused"], cause=row["unscored_cause"] or "",
        decoded=row.get("decoded"),
    )  # fmt: skip


def read_table(folder: Path) -> Any:
    """The table of a folder, as pyarrow has it. Raises InputError where it is damaged."""
    try:
        return pq.read_table(folder / LOG)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise InputError(folder / LOG, f"can't be read ({error})", "Take it from the run once more") from None
