"""Whole families held out of a training, what a model loses on them, and ending a training by that.

Two losses are held out: of refusals (does it still refuse new requests?) and of harmless rows (does it still help with
them?). Either may go on falling while the other rises; training ends when neither falls, and the weights that were best
on them are kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from numpy.typing import NDArray
from transformers import TrainerCallback

from forethought.errors import InputError
from forethought.records import Example
from forethought.training.config import EarlyStop
from forethought.training.rows import TERMS, TokenRow, collate
from forethought.training.streamed import ExampleFile

MOST = 500
"""Held-out examples of one term that are measured; more would cost time and settle little."""


def hold_out(examples: Sequence[Example], share: float) -> tuple[Sequence[Example], Sequence[Example]]:
    """(examples to train on, examples to measure by); no family stands in both.

    Of each term the share of its families goes, at least one, and with them all their examples. Which ones depends on
    their names alone. Nine bytes an example are held in memory. Raises InputError where a term has fewer than two.
    """
    families = np.empty(len(examples), dtype=np.uint64)
    terms = np.empty(len(examples), dtype=np.int8)
    for place, example in enumerate(examples):
        digest = hashlib.sha256(example.request.cluster.encode()).digest()
        families[place] = int.from_bytes(digest[:8], "big")
        terms[place] = TERMS.index(example.term)
    out = np.isin(families, np.concatenate([_chosen(families[terms == n], share, n) for n in range(len(TERMS))]))
    for number, name in enumerate(TERMS):
        if not (~out & (terms == number)).any():
            raise InputError(f"--held-out {share}", f"leaves no row of the term '{name}'", "Hold out less")
    by_name = np.argsort(families, kind="stable")
    few = [by_name[(out & (terms == number))[by_name]][:MOST] for number in range(len(TERMS))]
    return _at(examples, np.flatnonzero(~out)), _at(examples, np.sort(np.concatenate(few)))


def _chosen(families: NDArray[np.uint64], share: float, term: int) -> NDArray[np.uint64]:
    """The share of one term's families that go."""
    names = np.unique(families)
    if len(names) < 2:
        raise InputError(
            f"--held-out {share}",
            f"the examples hold {len(names)} families of the term '{TERMS[term]}', and two are needed",
            "Give more examples, or hold nothing out",
        )
    return np.asarray(names[: min(len(names) - 1, math.ceil(share * len(names)))])


def _at(examples: Sequence[Example], places: NDArray[Any]) -> Sequence[Example]:
    if isinstance(examples, ExampleFile):
        return examples.select(places.tolist())
    return [examples[place] for place in places.tolist()]


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


PREFIX = "held_out_"
"""What stands before a term's name in logs and counts."""


def stale(history: Sequence[Mapping[str, Any]], min_delta: float = 0.0) -> int:
    """Evaluations in a row, the last of a trainer's log included, in which neither loss fell below its best."""
    best: dict[str, float] = {}
    found = 0
    for entry in history:
        losses = {term: float(entry[PREFIX + term]) for term in TERMS if PREFIX + term in entry}
        if losses:
            gained = {one: loss for one, loss in losses.items() if loss < best.get(one, float("inf")) - min_delta}
            best |= gained
            found = 0 if gained else found + 1
    return found


class HeldOutStop(TrainerCallback):  # type: ignore[misc]
    """Ends training when nothing is gained; a resumed trainer knows its log, so that it stops where an unbroken one
    would."""

    def __init__(self, settings: EarlyStop) -> None:
        self._settings = settings

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that is resumed where it had been ended does not go on."""
        if stale(state.log_history, self._settings.min_delta) >= self._settings.patience:
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step is measured as well."""
        if state.global_step == state.max_steps:
            control.should_evaluate = True

    on_evaluate = on_train_begin


def best_counts(state: Any) -> dict[str, float]:
    """The held-out losses of a trainer's best step, which step that is, and whether training was ended early."""
    best = state.best_global_step
    losses = next(entry for entry in state.log_history if entry["step"] == best and PREFIX + TERMS[0] in entry)
    found = {name: float(value) for name, value in losses.items() if name.startswith(PREFIX)}
    return found | {"kept_step": float(best), "stopped_early": float(state.global_step < state.max_steps)}
