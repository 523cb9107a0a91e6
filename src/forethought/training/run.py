"""Training by a method, whatever that takes: what the command and every sweep call."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from forethought.chat import Tokenizer, encode_completion
from forethought.models.settings import THINK_BUDGET, write_settings
from forethought.reasoning import VERDICT_ANCHOR
from forethought.training.config import is_first
from forethought.training.fit import check_settings, train
from forethought.training.held_out import hold_out
from forethought.training.methods.base import Job
from forethought.training.prepare import method_settings, n_layers, training_rows
from forethought.training.rows import TokenRow, prompt_tokens


def train_method(job: Job) -> dict[str, float]:
    """Trains by the job's method into its folder; returns counts as `fit.train` does.

    Raises InputError where the rows hold nothing that the method can learn from, ConfigError and ModelError as
    `method_settings` and `fit.train` do.
    """
    return (job.method.procedure or train_rows)(_with_held_out(job))


def _with_held_out(job: Job) -> Job:
    """The job with families held out of its examples where its settings stop early and none were given."""
    early = job.config.early_stop
    if early is None or job.held_out:
        return job
    examples, held_out = hold_out(job.material.examples, early.held_out)
    return dataclasses.replace(job, material=dataclasses.replace(job.material, examples=examples), held_out=held_out)


def train_rows(job: Job) -> dict[str, float]:
    """One run of the trainer over the method's rows, and the settings beside what it saved.

    Examples in a file are streamed, and their rows kept for the next training of the same content.
    """
    objective = job.method.objective(job.config, n_layers(job.base))
    check_settings(job.config, objective, job.held_out or None)  # before hours of tokenising
    rows, seen = training_rows(job.method, job.material, job.max_tokens)
    held_out = None
    if job.held_out:
        held_out, _ = training_rows(job.method, dataclasses.replace(job.material, examples=job.held_out))
    settings = method_settings(job.method, job.material, job.config, seen)
    if settings.thinks:
        budget = think_budget(rows, job.material.tokenizer)
        settings = settings.model_copy(update={"think_budget": budget})
    counts = train(job.base, rows, job.config, job.out, job.on_step, objective, held_out)
    if is_first():  # of several processes one writes
        write_settings(job.out, settings)
    return counts


_LOOKED_AT = 512
"""Rows that are looked at, evenly spread: a thought's length hardly varies within a method."""
_SHARE = 0.95
"""Of the taught thoughts, so many are no longer than what the budget is measured by: one odd row decides nothing."""
_ROOM = 1.25
"""A new request may need more words than one that was trained on."""


def think_budget(rows: Sequence[TokenRow], tokenizer: Tokenizer) -> int:
    """Tokens of thought after which a verdict is asked for; never fewer than `THINK_BUDGET`.

    Counted from where the model's turn begins to its verdict. Rows without a verdict say nothing.
    """
    step = max(len(rows) // _LOOKED_AT, 1)
    lengths = [_before_verdict(rows[place], tokenizer) for place in range(0, len(rows), step)]
    taught = [length for length in lengths if length is not None]
    if not taught:
        return THINK_BUDGET
    return max(THINK_BUDGET, math.ceil(_ROOM * float(np.quantile(taught, _SHARE))))


def _before_verdict(row: TokenRow, tokenizer: Tokenizer) -> int | None:
    text = str(tokenizer.decode(list(row.input_ids[prompt_tokens(row) :])))
    before, anchor, _ = text.partition(VERDICT_ANCHOR)
    return len(encode_completion(tokenizer, before, end=False)) if anchor else None
