"""Every judged attempt of a sweep as one table without a word of text: for whoever wants to recompute its figures.

No request, thought or answer stands in it, so that it can be published whatever the requests were; ids are content
hashes, by which somebody who has the requests can join them again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from forethought.evals.short_questions import CAPABILITY, right_answers
from forethought.evals.suite.records import Judged
from forethought.pipeline.sweep.result import CellResult, SweepRun

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
        ("unscored_cause", pa.string()),
        ("decision", pa.string()),
        ("log_odds", pa.float32()),
        ("rules_named", pa.list_(pa.string())),
        ("reasoning_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
    ]
)
"""Columns, null where there is nothing to say."""


def write_log(path: Path, run: SweepRun) -> int:
    """Writes the table of a sweep as Parquet; returns its rows."""
    rows = [row for one in run.results for row in _rows(one)]
    part = path.with_name(path.name + ".part")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part, compression="zstd")
    os.replace(part, path)
    return len(rows)


def _rows(cell: CellResult) -> Iterator[dict[str, Any]]:
    place = {"defence": cell.defence, "base": cell.base, "seed": cell.seed, "budget": cell.budget}
    for one in (*cell.judged, *cell.questions):
        yield place | _attempt(one) | _reply(one) | {"right": _right(one)}


def _right(one: Judged) -> bool | None:
    return right_answers([one])[0] if CAPABILITY in one.attempt.cells else None


def _attempt(one: Judged) -> dict[str, Any]:
    attempt = one.attempt
    return {
        "attack": attempt.attack,
        "cells": list(attempt.cells),
        "attempt": attempt.asked,
        "seed_request": attempt.request.seed_id,
        "harmful": attempt.request.harmful,
        "rules": list(attempt.request.rules),
    }


def _reply(one: Judged) -> dict[str, Any]:
    said = one.response
    return {
        "refused": one.refused,
        # Why a model failed may name its server.
        "unscored_cause": "no response" if said is None else one.cause or None,
        "decision": said.decision if said is not None else None,
        "log_odds": said.log_odds if said is not None else None,
        "rules_named": list(said.reasoning.violated) if said is not None and said.reasoning is not None else None,
        "reasoning_tokens": said.reasoning_tokens if said is not None else None,
        "answer_tokens": said.answer_tokens if said is not None else None,
    }
