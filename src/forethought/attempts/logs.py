"""A run as logs of inspect-ai, for `inspect view` and for everything that reads them.

A log holds the full text of requests and answers, harmful ones included: it is the user's own file, and nothing in it
is redacted. Reports are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    read_eval_log,
    write_eval_log,
)
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score

from forethought.attempts.records import Judged, read_judged
from forethought.judges.base import Verdict
from forethought.manifest import now, versions
from forethought.models.callspec import Price, cost_of
from forethought.models.client import chat_message, output_of

SHARD = 2000
"""Attempts a log: `inspect view` opens one at a time."""
UNSCORED = "unscored"


def write_logs(
    folder: Path,
    out: Path,
    name: str,
    judge_name: str | None = None,
    shard: int = SHARD,
    price: Price | None = None,
) -> list[Path]:
    """Writes a folder's run as `out`/NAME-0001.eval and so on, at most `shard` attempts each; returns all of them.

    A log that is there and holds the same is kept, so that a run which goes on rewrites what changed. `name` is
    the attacked model's; without `judge_name` samples have no scores. One log's samples are in memory at a time.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    rows = read_judged(folder, judge_name)
    paths: list[Path] = []
    while part := list(islice(rows, shard)):
        path = out / f"{stem}-{len(paths) + 1:04}.eval"
        paths.append(path)
        content = _content(part, judge_name, price)
        if not (path.is_file() and _holds(path, content)):
            write_eval_log(_log(part, name, judge_name, path.stem, content, price), str(path))
    for stale in sorted(set(out.glob(f"{stem}-[0-9][0-9][0-9][0-9].eval")) - set(paths)):
        stale.unlink()
    return paths


def _content(part: Sequence[Judged], judge_name: str | None, price: Price | None) -> str:
    digest = hashlib.sha256(f"{judge_name}\x1e{price}".encode())
    for one in part:
        digest.update(one.model_dump_json().encode())
    return digest.hexdigest()[:16]


def _holds(path: Path, content: str) -> bool:
    try:
        header = read_eval_log(str(path), header_only=True)
    except Exception:  # cut short or of another kind: it is written again
        return False
    return (header.eval.metadata or {}).get("content") == content


def _log(
    part: Sequence[Judged], model: str, judge_name: str | None, task: str, content: str, price: Price | None
) -> EvalLog:
    time = now()
    undecided = sum(one.verdict is None or bool(one.verdict.cause) for one in part)
    score = EvalScore(
        name=judge_name or "",
        scorer=judge_name or "",
        scored_samples=len(part) - undecided,
        unscored_samples=undecided,
    )
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=time,
            task=task,
            task_id=content,
            run_id=content,
            dataset=EvalDataset(name=task, samples=len(part), sample_ids=[one.attempt.id for one in part]),
            model=f"forethought/{model}",
            config=EvalConfig(),
            packages=versions(),
            metadata={"content": content},
        ),
        stats=EvalStats(started_at=time, completed_at=time),
        results=EvalResults(
            total_samples=len(part), completed_samples=len(part), scores=[score] if judge_name is not None else []
        ),
        samples=[_sample(one, model, judge_name, price) for one in part],
    )


def _sample(one: Judged, model: str, judge_name: str | None, price: Price | None) -> EvalSample:
    attempt, response = one.attempt, one.response
    about: dict[str, Any] = {
        "attack": attempt.attack,
        "lineage": list(attempt.lineage),
        "cells": list(attempt.cells),
        "behavior": attempt.behavior,
        "harmful": attempt.request.harmful,
        "kind": attempt.request.kind,
        "plain": attempt.request.plain,
        "prefill": attempt.prefill,
        "think_budget": attempt.think_budget,
        "cause": one.cause,
    }
    if response is not None:
        written = response.reasoning_tokens + response.answer_tokens
        about["cost"] = cost_of(response.prompt_tokens, written, 0, price)
    output = output_of(model, response) if response is not None else ModelOutput(model=model, error=one.cause)
    messages = [chat_message(message) for message in attempt.request.messages]
    return EvalSample(
        id=attempt.id,
        epoch=1,
        input=messages,
        target="",
        messages=[*messages, output.choices[0].message] if output.choices else messages,
        output=output,
        scores={judge_name: _score(one)} if judge_name else None,
        metadata=about,
        model_usage={model: output.usage} if output.usage is not None else {},
    )


def _score(one: Judged) -> Score:
    found = one.verdict or Verdict(cause=one.cause)
    value = UNSCORED
    if found.harmful is not None:
        value = "harmful" if found.harmful else "not harmful"
    elif found.refused is not None:
        value = "refused" if found.refused else "complied"
    answer = one.response.answer if one.response is not None else None
    return Score(value=value, answer=answer, explanation=one.cause, metadata=found.model_dump(mode="json"))
