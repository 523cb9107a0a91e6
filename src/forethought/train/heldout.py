"""Held-out losses of both terms, over rows that training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce

from forethought.errors import InputError
from forethought.train.rows import TERMS, TokenRow, collate


class HeldOutRows:
    """A measure of a model: each term's mean negative log-probability of a taught token, in nats.

    Batches are divided among processes; each has as many, the last ones again with no weight, so that sharded weights
    are gathered by all. Raises InputError for rows that lack a term.
    """

    def __init__(self, rows: Sequence[TokenRow], pad_id: int, batch_size: int) -> None:
        present = {row.term for row in rows}
        for number, name in enumerate(TERMS):
            if number not in present:
                raise InputError(
                    f"{len(rows)} held-out rows", f"hold none of the term '{name}'", "Hold out rows of both terms"
                )
        self._pad_id = pad_id
        # Longest first: memory that does not suffice shows at once.
        ordered = sorted((row.model_dump() for row in rows), key=lambda row: -len(row["input_ids"]))
        self._batches = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]

    def __call__(self, model: Any) -> dict[str, float]:
        """The losses; the caller has switched gradients and dropout off."""
        state = PartialState()
        sums = torch.zeros(2, len(TERMS), dtype=torch.float64)  # of losses, and of tokens
        for turn in range(-(-len(self._batches) // state.num_processes)):
            place = turn * state.num_processes + state.process_index
            batch = collate(self._batches[min(place, len(self._batches) - 1)], self._pad_id)
            batch = {name: value.to(state.device) for name, value in batch.items()}
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
            out = model(**inputs, taught_only=True)
            if place < len(self._batches):
                sums += self._sums(out, batch["term"])
        if state.num_processes > 1:
            sums = reduce(sums.float().to(state.device), "sum").double().cpu()
        return {name: float(sums[0, number] / sums[1, number]) for number, name in enumerate(TERMS)}

    @staticmethod
    def _sums(out: Any, term: torch.Tensor) -> torch.Tensor:
        masks = [out.taught & (term == number).unsqueeze(1) for number in range(len(TERMS))]
        losses = torch.stack([-(out.log_probs * mask).sum() for mask in masks])
        counts = torch.stack([mask.sum() for mask in masks])
        return torch.stack([losses.double(), counts.double()]).cpu()
