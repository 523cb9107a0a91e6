"""A pool of adversarial suffixes that is kept up with the model in training, and on disk."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from forethought.errors import ModelError
from forethought.records import Record
from forethought.store import Store, read_store, rewrite
from forethought.train.config import is_first

Ids = tuple[int, ...]


class PoolSetting(Record):
    """How the pool is kept up. The defaults suit a small model on two cores; `PAPER` is R2D2's own."""

    size: int = Field(default=8, ge=1)
    """Harmful requests with a suffix each."""
    updated: int = Field(default=1, ge=1)
    """Requests of the pool that each training step attacks and learns from."""
    gcg_steps: int = Field(default=1, ge=0)
    """GCG steps that each of them gets, on the weights of that moment."""
    candidates: int = Field(default=32, ge=1)
    """Suffixes tried a GCG step."""
    top_k: int = Field(default=64, ge=1)
    """Tokens at each place that candidates are drawn from."""
    length: int = Field(default=20, ge=1)
    """Tokens of a suffix."""
    reset_every: int = Field(default=50, ge=1)
    """Training steps after which a share of the suffixes begins anew."""
    reset_share: float = Field(default=0.2, ge=0.0, le=1.0)
    seed: int = 0


PAPER = PoolSetting(size=180, updated=8, gcg_steps=5, candidates=512, top_k=256)
"""Of section 5 and appendix of Mazeika et al. 2024, arXiv 2402.04249, over 2,000 steps of full fine-tuning."""


class _Changes(Record):
    """What one training step changed."""

    suffixes: dict[int, Ids]
    """By place in the pool; an empty suffix is the first one again."""


class SuffixPool:
    """Suffixes by place in the pool, as they stand before a training step.

    Each step's changes are a line of a file, so that a run that goes on from a checkpoint has the very pool that it
    had there: lines of later steps, which are to be done again, are taken back.
    """

    def __init__(self, setting: PoolSetting, size: int, file: Path) -> None:
        self._setting, self._size, self._file = setting, size, file
        self._suffixes: dict[int, Ids] = {}
        self._next: int | None = None

    def before(self, step: int) -> Mapping[int, Ids]:
        """The suffixes by place, resets of this step done; a place that is missing has the first suffix.

        Raises ModelError where steps before this one are not in the file.
        """
        if self._next != step:
            self._read(step)
        for place in self.reset_at(step):
            self._suffixes.pop(place, None)
        return self._suffixes

    def chosen(self, step: int) -> list[int]:
        """Places that a training step attacks; by seed and step alone."""
        rng = random.Random(f"{self._setting.seed}:chosen:{step}")
        return sorted(rng.sample(range(self._size), min(self._setting.updated, self._size)))

    def reset_at(self, step: int) -> list[int]:
        """Places whose suffix begins anew before a training step; by seed and step alone."""
        if step == 0 or step % self._setting.reset_every:
            return []
        rng = random.Random(f"{self._setting.seed}:reset:{step}")
        return sorted(rng.sample(range(self._size), round(self._setting.reset_share * self._size)))

    def keep(self, step: int, changed: Mapping[int, Ids]) -> None:
        """Puts a step's new suffixes into the pool and the file."""
        self._suffixes |= changed
        self._next = step + 1
        if is_first():  # of several processes, all of which find the same, one writes
            with Store(self._file, write=True) as store:
                store.add(str(step), _Changes(suffixes=dict(changed)))

    def _read(self, step: int) -> None:
        # A last line that a kill cut short is of a step that no checkpoint holds.
        kept = {int(key): changes for key, changes in read_store(self._file, _Changes).items() if int(key) < step}
        if list(kept) != list(range(step)):
            raise ModelError(
                self._file,
                f"lacks suffixes of steps before {step}, at which training goes on",
                "Train into another folder, or delete this one's checkpoints",
            )
        if is_first() and self._file.is_file():
            rewrite(self._file, ((str(one), changes) for one, changes in kept.items()))
        self._suffixes = {}
        for one, changes in kept.items():
            for place in self.reset_at(one):
                self._suffixes.pop(place, None)
            self._suffixes |= changes.suffixes
