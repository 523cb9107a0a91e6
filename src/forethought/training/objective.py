"""What a training step minimises: what the trainer asks of an objective, the loss of SCoT, and what objectives share.

An objective of one method stands in that method's file. torch is loaded by what is called, so that methods can be
listed without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from forethought.errors import ConfigError
from forethought.training.rows import IGNORED, TERMS

if TYPE_CHECKING:
    import torch


Batch = dict[str, "torch.Tensor"]
"""What `rows.collate` makes: input_ids, attention_mask, labels of shape (batch, tokens), term of shape (batch,)."""


def _alone(value: torch.Tensor) -> torch.Tensor:
    return value


@dataclass(frozen=True)
class Step:
    """Where training stands."""

    number: int = 0
    """Optimiser steps done."""
    total: int = 1
    processes: int = 1
    summed: Callable[[torch.Tensor], torch.Tensor] = _alone
    """Sums a tensor over all processes; every process has to call it equally often."""


class Objective(Protocol):
    """A loss. It may look at the model's hidden states and switch its adapter off; it never steps the optimiser."""

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, a scalar, and the value of each of its terms by name.

        The trainer averages gradients over processes: a mean over all processes' tokens is
        the local sum, divided by the tokens of all, times the number of processes.
        """
        ...


def paired_loss(
    log_probs: torch.Tensor,  # B T
    taught: torch.Tensor,  # B T, true where a token bears loss
    term: torch.Tensor,  # B
    benign_weight: float,
    step: Step | None = None,
    weights: torch.Tensor | None = None,  # B T
) -> tuple[torch.Tensor, dict[str, float]]:
    """L_refusal + benign_weight * L_benign, each the mean over its rows' taught tokens in all processes.

    With `weights` it is their weighted mean, divided by the sum of the weights: a term is as large as without, so that
    a learning rate means the same. A term without rows in the batch is zero. Returns the loss and each term's value.
    """
    import torch

    step = step or Step()
    shares = taught.to(log_probs.dtype) if weights is None else taught * weights.to(log_probs.dtype)
    masks = [shares * (term == number).unsqueeze(1) for number in range(len(TERMS))]
    sums = torch.stack([-(log_probs * mask).sum() for mask in masks])
    counts = step.summed(torch.stack([mask.sum() for mask in masks]))
    totals = step.summed(sums.detach())
    loss = log_probs.new_zeros(())
    values: dict[str, float] = {}
    for number, name in enumerate(TERMS):
        if counts[number] == 0:
            continue
        value = sums[number] * step.processes / counts[number]
        values[name] = float(totals[number] / counts[number])
        loss = loss + (value if name == "refusal" else benign_weight * value)
    return loss, values


@dataclass(frozen=True)
class PairedObjective:
    """Supervised fine-tuning on both terms."""

    benign_weight: float = 1.0
    """Lambda of the loss."""

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss of the batch's taught tokens, by their weights where rows have some; the model has a taught
        head (`forward.add_taught_head`)."""
        out = model(**inputs_of(batch), taught_only=True)
        weights = batch["weights"][:, 1:] if "weights" in batch else None
        return paired_loss(out.log_probs, out.taught, batch["term"], self.benign_weight, step, weights)


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
    import torch

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
    import torch

    inputs = {name: value[:1] for name, value in inputs_of(batch).items()}
    return inputs | {"labels": torch.full_like(inputs["labels"], IGNORED)}


def bare(model: Any) -> Any:
    """The model without its parallel wrapper."""
    from accelerate.utils import extract_model_from_parallel

    return extract_model_from_parallel(model)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout while it lasts, and as it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def before_training(model: Any) -> contextlib.AbstractContextManager[Any]:
    """While it lasts, the weights are the base model's. Raises ConfigError where all weights are trained."""
    own = bare(model)
    if not hasattr(own, "disable_adapter"):
        raise ConfigError("method: full", "this objective compares with the base model's weights", "Use method: lora")
    manager: contextlib.AbstractContextManager[Any] = own.disable_adapter()
    return manager


def layers_of(model: Any) -> Any:
    """The decoder's layers, a ModuleList."""
    own = bare(model)
    base = own.get_base_model() if hasattr(own, "get_base_model") else own
    return base.get_decoder().layers


def inputs_of(batch: Batch, prefix: str = "", rows: torch.Tensor | None = None) -> Batch:
    """input_ids, attention_mask and labels of a batch, or of its other completions with the prefix `other_`."""
    found = {name: batch[f"{prefix}{name}"] for name in ("input_ids", "attention_mask", "labels")}
    return found if rows is None else {name: value[rows] for name, value in found.items()}


def at_depths(of_32: tuple[int, ...], n_layers: int) -> tuple[int, ...]:
    """Layers at the depths that a paper gives for 32 layers, each once."""
    return tuple(sorted({min(round(n_layers * layer / 32), n_layers - 1) for layer in of_32}))
