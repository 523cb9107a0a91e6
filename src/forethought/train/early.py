"""Ending a training when held-out rows no longer gain, and keeping the weights that were best on them.

Two losses are held out: of refusals (does it still refuse new requests?) and of harmless rows (does it still help with
them?). Either may go on falling while the other rises; training ends when neither falls.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from forethought.manifest import write_json
from forethought.train.config import EarlyStop
from forethought.train.processes import is_first
from forethought.train.rows import TERMS

PREFIX = "held_out_"
"""What stands before a term's name in logs and counts."""
Losses = Mapping[str, float]
"""Held-out loss by term: `refusal` and `benign`."""
Measure = Callable[[Any], Losses]
"""A model, in evaluation mode, to its held-out losses. Among several processes every one calls it."""
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

    def __init__(self, settings: EarlyStop, benign_weight: float, folder: Path) -> None:
        self._settings, self._weight, self._folder = settings, benign_weight, folder
        self._trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """The trainer whose `held_out_losses` is asked and whose weights are saved."""
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that is resumed where it had been ended does not go on."""
        if self.standing(state).stale >= self._settings.patience:
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the step's checkpoint is written, so that the checkpoint's log holds the evaluation."""
        if state.global_step % self._settings.every and state.global_step != state.max_steps:
            return
        losses = self._trainer.held_out_losses()
        self._trainer.log({PREFIX + term: round(value, 6) for term, value in losses.items()})
        now = self.standing(state)
        if now.best_step == state.global_step:
            self._keep(state.global_step)
        if now.stale >= self._settings.patience:
            control.should_training_stop = True

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
