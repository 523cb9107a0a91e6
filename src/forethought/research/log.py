"""Every judged attempt of a sweep as one table without a word of text: for whoever wants to recompute its figures.

No request and no thought stands in it, and of answers those to the package's own short questions alone, so that it can
be published whatever the requests were; ids are content hashes, by which somebody who has the requests can join them
again. Beside it lies what else a cell came to, so that another run can take it over (`kept`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from forethought.attacks.searches.outcome import Outcome
from forethought.attempts.records import Judged
from forethought.attempts.short_questions import CAPABILITY, right_answers
from forethought.metrics import Figure
from forethought.models.conversation import Response
from forethought.records import Record, write_jsonl
from forethought.research.figures import text_figures, understood
from forethought.research.result import CellResult, SweepRun

LOG, CELLS = "attempts.parquet", "cells.jsonl"
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
    ]
)
"""Columns, null where there is nothing to say."""


class CellRecord(Record):
    """What a cell came to besides its attempts; without text, as those are."""

    defence: str
    title: str
    base: str
    seed: int
    budget: int
    note: str
    key: str
    """Of everything in the sweep that its answers depend on."""
    trained: bool
    thinks: bool = False
    tokens: int = 0
    train_seconds: float = 0.0
    seen: tuple[str, ...] = ()
    latency: tuple[float, ...] = ()
    outcomes: dict[str, tuple[Outcome, ...]] = Field(default_factory=dict)
    of_text: tuple[Figure, ...] = ()
    understood: tuple[Figure, ...] | None = None
    """Of the base model alone: how well it understands each style, by its name."""
    seconds: float = 0.0
    commit: str | None = None
    finished: str = ""
    machine: dict[str, Any] = Field(default_factory=dict)


def write_log(folder: Path, run: SweepRun, attacks: Sequence[str]) -> int:
    """Writes attempts and cells of a sweep into `folder`; returns how many attempts there are. `attacks`: styles."""
    rows = [row for one in run.results for row in _rows(one)]
    part = folder / f"{LOG}.part"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part, compression="zstd")
    os.replace(part, folder / LOG)
    write_jsonl(folder / CELLS, [_cell(one, attacks) for one in run.results if one.judged])
    return len(rows)


def _cell(one: CellResult, attacks: Sequence[str]) -> CellRecord:
    made, trained, styles = one.made, one.trained, understood(one, attacks)
    return CellRecord(
        defence=one.defence,
        title=one.title,
        base=one.base,
        seed=one.seed,
        budget=one.budget,
        note=one.note,
        key=made.key if made is not None else "",
        trained=trained is not None,
        thinks=trained is not None and trained.thinks,
        tokens=trained.tokens if trained is not None else 0,
        train_seconds=trained.seconds if trained is not None else 0.0,
        seen=trained.seen if trained is not None else (),
        latency=tuple(one.latency),
        outcomes={name: tuple(map(_wordless, ended)) for name, ended in one.outcomes.items()},
        of_text=_numbers(text_figures(one)),
        understood=None if styles is None else _numbers(styles),
        seconds=made.seconds if made is not None else 0.0,
        commit=made.commit if made is not None else None,
        finished=made.finished if made is not None else "",
        machine=made.machine if made is not None else {},
    )


def _numbers(figures: Sequence[Figure]) -> tuple[Figure, ...]:
    return tuple(figure for figure in figures if not math.isnan(figure.value))


def _wordless(outcome: Outcome) -> Outcome:
    """Without the conversation that got through, and without causes, which may name a server."""
    empty: dict[str, Any] = {"best": None, "best_answer": "", "best_verdict": None, "cause": "", "causes": {}}
    return outcome.model_copy(update=empty)


def _rows(cell: CellResult) -> Iterator[dict[str, Any]]:
    place = {"defence": cell.defence, "base": cell.base, "seed": cell.seed, "budget": cell.budget}
    for one in (*cell.judged, *cell.questions):
        yield place | _attempt(one) | _reply(one) | _question(one)


def _question(one: Judged) -> dict[str, Any]:
    if CAPABILITY not in one.attempt.cells or one.response is None:
        return {}
    return {"right": right_answers([one])[0], "answer": one.response.answer}


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
        "rules_named": _named(said),
        "reasoning_tokens": said.reasoning_tokens if said is not None else None,
        "answer_tokens": said.answer_tokens if said is not None else None,
    }


def _named(said: Response | None) -> list[str] | None:
    """None where there is neither a thought nor a defence that named a rule."""
    return None if said is None or (said.reasoning is None and not said.named) else list(said.rules_named)
