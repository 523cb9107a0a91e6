"""All four questions about one model, in one pass over its thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forethought.attacks.catalogue import DIRECT
from forethought.errors import InputError, ModelError
from forethought.metrics import Figure, share
from forethought.research.inside.added import Verdicts, added_figures, run_kinds
from forethought.research.inside.decodable import POSITIONS, Probed, Weights, probe_everywhere, probe_figures
from forethought.research.inside.failures import Table, failure_figures, tables
from forethought.research.inside.sample import Asked, Sample
from forethought.research.inside.thoughts import (
    OnDone,
    Swap,
    Thought,
    need_thoughts,
    own_thoughts,
    plan_swaps,
    run_swaps,
    swap_figures,
)

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

NO_BASE = "the model's base weights are not beside it"


@dataclass(frozen=True)
class Inside:
    """What was found."""

    threshold: float
    """Log-odds from which the model refuses."""
    thoughts: tuple[Thought, ...]
    """Of the held-out requests, direct and in every style."""
    swaps: tuple[Swap, ...]
    tables: tuple[Table, ...]
    probed: tuple[Probed, ...]
    verdicts: Verdicts
    figures: tuple[Figure, ...]
    missing: dict[str, str]
    """Names of figures that could not be had, with the reason."""


def texts_to_read(sample: Sample, weights: Sequence[Weights]) -> int:
    """About how many texts `look_inside` reads, for a progress bar: thoughts, verdicts and states."""
    n_all = len(sample.fit) + len(sample.dev) + len(sample.held_out)
    return n_all + 4 * len(sample.held_out) + n_all * len(POSITIONS) * len(weights)


def weights_of(model: LocalModel) -> tuple[Weights, ...]:
    """Which weights can be read: those that were trained, and the base model's where they are there."""
    try:
        with model.adapter_off():
            return ("base", "trained")
    except ModelError:
        return ("trained",)


def look_inside(model: LocalModel, sample: Sample, seed: int = 0, on_done: OnDone | None = None) -> Inside:
    """Asks the four questions. `on_done(n)` is told texts that were read.

    Raises ModelError for a model that doesn't think, InputError where no held-out request has a verdict.
    """
    need_thoughts(model)
    assert model.thinking is not None
    threshold = model.thinking.threshold
    fit, dev = (
        own_thoughts(model, [Asked(style=DIRECT.name, request=one) for one in part], on_done)
        for part in (sample.fit, sample.dev)
    )
    thoughts = own_thoughts(model, sample.held_out, on_done)
    if all(one.log_odds is None for one in thoughts):
        raise InputError(
            f"{len(thoughts)} held-out requests", "have no verdict", "Check the model with forethought chat"
        )
    swaps = run_swaps(model, plan_swaps(thoughts, threshold, seed), on_done)
    found = run_kinds(model, thoughts, seed, on_done)
    weights = weights_of(model)
    probed = probe_everywhere(model, fit, dev, thoughts, weights, on_done)
    figures = [
        share([one.log_odds is not None for one in thoughts]).named("inside_verdicts"),
        *swap_figures(swaps, threshold),
        *failure_figures(thoughts, threshold),
        *probe_figures(thoughts, probed),
        *added_figures(thoughts, found),
    ]
    missing = {} if "base" in weights else {f"inside_probe_{position}_base": NO_BASE for position in POSITIONS}
    return Inside(
        threshold=threshold,
        thoughts=tuple(thoughts),
        swaps=tuple(swaps),
        tables=tuple(tables(thoughts, threshold)),
        probed=tuple(probed),
        verdicts=found,
        figures=tuple(figures),
        missing=missing,
    )
