"""Weights that several entries of a sweep answer with, and what was heard of them already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forethought.engine.settings import read_settings
from forethought.errors import ConfigError
from forethought.evals.suite.records import Judged
from forethought.pipeline.sweep.cell import Trained
from forethought.pipeline.sweep.config import MethodEntry


class Lending:
    """The trained weights of one base and seed."""

    def __init__(self) -> None:
        self._trained: dict[tuple[str, int], Trained] = {}
        self._said: dict[Path, Sequence[Judged]] = {}

    def trained(self, label: str, budget: int, weights: Trained) -> None:
        """An entry's weights are there."""
        self._trained[label, budget] = weights

    def said(self, adapter: Path, judged: Sequence[Judged]) -> None:
        """What weights said with nothing around them."""
        self._said[adapter] = judged

    def lent(self, entry: MethodEntry, weights_of: str, budget: int) -> Trained | None:
        """The weights that an entry shares; None where it trains its own. `weights_of` is its method's.

        Raises ConfigError where the entry names one that was not trained.
        """
        if entry.weights_of:
            lent = self._trained.get((entry.weights_of, budget))
            if lent is None:
                place = f"method '{entry.label}', weights_of: {entry.weights_of}"
                raise ConfigError(place, "its weights are not here", "See why, or train it: --only does one alone")
            return lent
        return None if entry.trains_otherwise else self._trained.get((weights_of, budget))

    def said_alike(self, shared: Trained | None, adapter: Path) -> Sequence[Judged]:
        """What the lender of an entry's weights said, where the entry by itself would say the same at one threshold."""
        if shared is None or shared.adapter not in self._said:
            return ()
        unlike = {"method": "", "threshold": 0.0, "threshold_note": ""}
        alike = [read_settings(one).model_copy(update=unlike) for one in (shared.adapter, adapter)]
        return self._said[shared.adapter] if alike[0] == alike[1] and alike[0].thinks else ()
