"""Rule heads as an auxiliary loss: what a middle layer knows of a request stays decodable while the thought is taught.

Deep supervision (Lee et al. 2014, arXiv 1409.5185) where harm is the plainest, at the prompt's last token. The heads
are logistic ones fitted on the base model beforehand and stay frozen: a head that was trained along could follow the
state wherever it drifts, and nothing would hold the state itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from forethought.errors import ConfigError
from forethought.train.objectives.base import Batch, Objective, Step
from forethought.train.objectives.weights import layers_of

Targets = NDArray[np.float32]
"""Of one request, (heads): 1 where it is harmful or breaks the head's rule, 0 where not, nan where nobody knows."""


@dataclass(frozen=True)
class RuleHeadsObjective:
    """Another objective's loss, and that of frozen heads on the state at each prompt's last token."""

    inner: Objective
    layer: int
    """Whose output the heads read; 1 is the first layer."""
    weights: Targets = field(repr=False, compare=False)
    """(heads, hidden size), the first head for harm."""
    biases: Targets = field(repr=False, compare=False)
    """(heads)."""
    targets: Mapping[tuple[int, ...], Targets] = field(repr=False, compare=False)
    """By the token ids of a prompt. A row whose prompt is none of these has no part in the heads' loss."""
    digest: str
    """Content hash of heads and targets: a stopped training must not go on with others."""
    weight: float
    """Of the heads' loss, beside 1 for the inner one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the inner objective."""
        return self.inner.columns

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """Inner loss + weight * (harm + rules), each the balanced cross-entropy of its heads.

        Raises ConfigError where no trained weights stand below the heads' layer: nothing could be supervised.
        """
        kept: list[torch.Tensor] = []
        with _listening(layers_of(model)[self.layer - 1], kept):
            loss, values = self.inner.loss(model, batch, step)
        hidden = kept[0]  # B T H
        if torch.is_grad_enabled() and not hidden.requires_grad:
            raise ConfigError(
                f"layer {self.layer} of the rule heads", "stands below all trained layers", "Lower train.skip_layers"
            )
        places, positions, targets = self._known(batch)
        states = hidden[places, positions].float()  # N H
        weights, biases, balance, target = (
            torch.as_tensor(array, device=hidden.device)
            for array in (self.weights, self.biases, self._balance, targets)
        )
        heads, found = head_loss(states @ weights.T + biases, target, balance, step)
        return loss + self.weight * heads, values | found

    def _known(self, batch: Batch) -> tuple[list[int], list[int], Targets]:
        """(rows of the batch, place of each one's last prompt token, their targets of shape (rows, heads))."""
        lengths = batch["attention_mask"].sum(1).tolist()
        places, positions, targets = [], [], []
        for place, (ids, length) in enumerate(zip(batch["input_ids"].tolist(), lengths, strict=True)):
            for n_prompt in self._prompt_lengths:  # the longest first: a prompt may begin with another
                found = self.targets.get(tuple(ids[:n_prompt])) if n_prompt < length else None
                if found is not None:
                    places.append(place)
                    positions.append(n_prompt - 1)
                    targets.append(found)
                    break
        stacked = np.stack(targets) if targets else np.zeros((0, len(self.biases)), dtype=np.float32)
        return places, positions, stacked

    @cached_property
    def _prompt_lengths(self) -> list[int]:
        return sorted({len(prompt) for prompt in self.targets}, reverse=True)

    @cached_property
    def _balance(self) -> Targets:
        return balance_of(np.stack(list(self.targets.values())))


def balance_of(targets: Targets) -> Targets:
    """Weights of absent and present, shape (2, heads), from targets (requests, heads): both weigh alike in a head.

    As scikit-learn's `balanced`, with which the heads are fitted: n / 2 n_class. A class without requests weighs 1.
    """
    known = ~np.isnan(targets)
    present = np.nansum(targets, axis=0)
    total = known.sum(axis=0)
    counts = np.stack([total - present, present])
    return np.where(counts > 0, total / np.maximum(2 * counts, 1), 1.0).astype(np.float32)


def head_loss(
    logits: torch.Tensor,  # N heads
    targets: torch.Tensor,  # N heads, nan where unknown
    balance: torch.Tensor,  # 2 heads
    step: Step | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Mean of the harm head's cross-entropies plus mean of the rule heads', over what is known in all processes.

    Returns the loss and the value of each part, `head_harm` and `head_rules`; a part without known targets is left out.
    """
    step = step or Step()
    known = ~targets.isnan()
    target = targets.nan_to_num()
    each = binary_cross_entropy_with_logits(logits, target, reduction="none")
    each = each * torch.where(target > 0.5, balance[1], balance[0]) * known
    sums = torch.stack([each[:, 0].sum(), each[:, 1:].sum()])
    counts = step.summed(torch.stack([known[:, 0].sum(), known[:, 1:].sum()]).to(sums.dtype))
    totals = step.summed(sums.detach())
    loss = logits.sum() * 0.0  # a batch without a known prompt still has its part in the graph
    values: dict[str, float] = {}
    for number, name in enumerate(("head_harm", "head_rules")):
        if counts[number] > 0:
            loss = loss + sums[number] * step.processes / counts[number]
            values[name] = float(totals[number] / counts[number])
    return loss, values


@contextlib.contextmanager
def _listening(layer: Any, kept: list[torch.Tensor]) -> Iterator[None]:
    """While it lasts, what the layer puts out is kept as it is: an operation in here would be checkpointed with it."""

    def keep(module: Any, inputs: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()
