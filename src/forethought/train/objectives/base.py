"""What the trainer asks of an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

Batch = dict[str, torch.Tensor]
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

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a batch that it reads besides input_ids, attention_mask, labels and term."""
        ...

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss, a scalar, and the value of each of its terms by name.

        The trainer averages gradients over processes: a mean over all processes' tokens is
        the local sum, divided by the tokens of all, times the number of processes.
        """
        ...
