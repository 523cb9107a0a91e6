"""Whole families held out of a training, what a model loses on them, and ending a training by that.

Two losses are held out: of refusals (does it still refuse new requests?) and of harmless rows (does it still help with
them?). Either may go on falling while the other rises; training ends when neither falls, and the weights that were best
on them are kept."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from numpy.typing import NDArray
from transformers import TrainerCallback

from forethought.errors import InputError
from forethought.manifest import write_json
from forethought.records import Example
from forethought.training.config import EarlyStop, TrainConfig, is_first
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
_STEP = "step.json"


@dataclass(frozen=True)
class Standing:
    """What a history of evaluations comes to."""

    best_step: int = 0
    """Where refusal + weight * benign was lowest, the first of equals; 0 before any evaluation."""
    stale: int = 0
    """Evaluations in a row, the last included, in which neither loss fell below its best."""


def standing(history: Sequence[Mapping[str, Any]], settings: EarlyStop, benign_weight: float) -> Standing:
    """Reads a trainer's log; a resumed one knows its log, so that it stops where an unbroken one would."""
    best: dict[str, float] = {}
    lowest, best_step, stale = float("inf"), 0, 0
    for entry in history:
        losses = {term: float(entry[PREFIX + term]) for term in TERMS if PREFIX + term in entry}
        if not losses:
            continue
        gained = [term for term, loss in losses.items() if loss < best.get(term, float("inf")) - settings.min_delta]
        best |= {term: losses[term] for term in gained}
        stale = 0 if gained else stale + 1
        total = sum(loss * (benign_weight if term == "benign" else 1.0) for term, loss in losses.items())
        if total < lowest:
            lowest, best_step = total, int(entry["step"])
    return Standing(best_step, stale)


class HeldOutStop(TrainerCallback):  # type: ignore[misc]
    """Measures every so many steps, keeps the best weights, and ends training when nothing is gained."""

    def __init__(self, trainer: Any, rows: HeldOutRows, config: TrainConfig, out: Path) -> None:
        self._trainer, self._rows = trainer, rows
        self._settings, self._weight = config.early_stop or EarlyStop(), config.benign_weight
        self._folder = out / "checkpoints" / "best"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that is resumed where it had been ended does not go on."""
        if self.standing(state).stale >= self._settings.patience:
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the step's checkpoint is written, so that the checkpoint's log holds the evaluation."""
        if state.global_step % self._settings.every and state.global_step != state.max_steps:
            return
        losses = self._measured()
        self._trainer.log({PREFIX + term: round(value, 6) for term, value in losses.items()})
        now = self.standing(state)
        if now.best_step == state.global_step:
            self._keep(state.global_step)
        if now.stale >= self._settings.patience:
            control.should_training_stop = True

    def _measured(self) -> dict[str, float]:
        """The held-out losses of the model as it stands; the random state of training is not touched."""
        model = self._trainer.model_wrapped
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._trainer.compute_loss_context_manager():
                return self._rows(model)
        finally:
            model.train(was_training)

    def standing(self, state: Any) -> Standing:
        """Where the evaluations of a trainer's state stand."""
        return standing(state.log_history, self._settings, self._weight)

    def counts(self, state: Any) -> dict[str, float]:
        """The held-out losses of the best step, which step that is, and whether training was ended before its last."""
        best = self.standing(state).best_step
        losses = next(entry for entry in state.log_history if entry["step"] == best and PREFIX + TERMS[0] in entry)
        found = {name: float(value) for name, value in losses.items() if name.startswith(PREFIX)}
        return found | {"best_step": float(best), "stopped_early": float(state.global_step < state.max_steps)}

    def best(self, state: Any) -> Path | None:
        """The folder of the best weights; None where the last step's are the best, or the folder is another step's."""
        step = self.standing(state).best_step
        file = self._folder / _STEP
        if step == state.global_step or not file.is_file():
            return None
        return self._folder if json.loads(file.read_text(encoding="utf-8")) == step else None

    def _keep(self, step: int) -> None:
        part = self._folder.with_name(self._folder.name + ".part")
        if is_first():
            shutil.rmtree(part, ignore_errors=True)
        self._trainer.accelerator.wait_for_everyone()
        self._trainer.save_model(str(part))
        if is_first():
            write_json(part / _STEP, step)
            shutil.rmtree(self._folder, ignore_errors=True)
            os.replace(part, self._folder)
        self._trainer.accelerator.wait_for_everyone()


def copy_best(best: Path, out: Path) -> None:
    """Puts the best weights where a training leaves its own."""
    for file in best.iterdir():
        if file.name != _STEP:
            shutil.copy2(file, out / file.name)
