"""Training by a method, whatever that takes: what the command and every sweep call."""

from __future__ import annotations

import dataclasses

from forethought.engine.settings import write_settings
from forethought.train.cache import training_rows
from forethought.train.families import hold_out
from forethought.train.fit import check_settings, train
from forethought.train.methods.base import Job
from forethought.train.prepare import method_settings, n_layers
from forethought.train.processes import is_first
from forethought.train.thought_length import think_budget


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
