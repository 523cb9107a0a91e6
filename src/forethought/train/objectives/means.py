"""Means over the batches of all processes, and passes that all of them make."""

from __future__ import annotations

import torch

from forethought.train.objectives.base import Batch, Step
from forethought.train.objectives.weights import inputs_of
from forethought.train.rows import IGNORED


def mean_over_all(total: torch.Tensor, count: torch.Tensor, step: Step) -> tuple[torch.Tensor, float]:
    """(loss, value) of a mean whose sum and count are this process's own, both scalars.

    The value is the mean over all processes; the loss is what each has to give back for the trainer's average of
    gradients to be that mean's. Both are 0 where no process counts anything. Every process has to call it.
    """
    counts = step.summed(count.to(total.dtype))
    totals = step.summed(total.detach())
    if counts == 0:
        return total * 0.0, 0.0
    return total * step.processes / counts, float(totals / counts)


def others_of(batch: Batch, step: Step) -> tuple[torch.Tensor, Batch] | None:
    """(rows, their other completions as inputs); None where no process has a row with another completion.

    Where others have some and this process has none, it gets a row of its own on which nothing is taught: sharded
    processes have to make the same passes, or wait for each other for ever.
    """
    here = batch.get("other_of")
    count = torch.tensor(0 if here is None else len(here), device=batch["term"].device)
    if step.summed(count) == 0:
        return None
    if here is not None:
        return here, inputs_of(batch, "other_")
    return torch.zeros(1, dtype=torch.long, device=batch["term"].device), untaught(batch)


def own_of(batch: Batch, rows: torch.Tensor) -> Batch:
    """The own completions of the rows that `others_of` gave, as inputs; of an invented row nothing is taught."""
    return inputs_of(batch, "", rows) if "other_of" in batch else untaught(batch)


def untaught(batch: Batch) -> Batch:
    """The batch's first row as inputs on which nothing is taught."""
    inputs = {name: value[:1] for name, value in inputs_of(batch).items()}
    return inputs | {"labels": torch.full_like(inputs["labels"], IGNORED)}
