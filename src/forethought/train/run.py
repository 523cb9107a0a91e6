"""Training by a method, whatever that takes: what the command and every sweep call."""

from __future__ import annotations

from forethought.engine.settings import write_settings
from forethought.train.fit import train
from forethought.train.methods.base import Job
from forethought.train.prepare import method_rows, method_settings, n_layers, seen_operators
from forethought.train.processes import is_first


def train_method(job: Job) -> dict[str, float]:
    """Trains by the job's method into its folder; returns counts as `fit.train` does.

    Raises InputError where the rows hold nothing that the method can learn from, ConfigError and ModelError as
    `method_settings` and `fit.train` do.
    """
    return (job.method.procedure or train_rows)(job)


def train_rows(job: Job) -> dict[str, float]:
    """One run of the trainer over the method's rows, and the settings beside what it saved."""
    rows = method_rows(job.method, job.material, job.max_tokens)
    seen = seen_operators(rows, job.material.examples, job.material.tokenizer)
    settings = method_settings(job.method, job.material, job.config, seen)
    objective = job.method.objective(job.config, n_layers(job.base))
    counts = train(job.base, rows, job.config, job.out, job.on_step, objective)
    if is_first():  # of several processes one writes
        write_settings(job.out, settings)
    return counts
