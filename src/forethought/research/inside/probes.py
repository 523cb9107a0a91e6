"""How much of the verdict can be decoded before the thought, and how much at the verdict?

A logistic probe reads the hidden state at the prompt's last token, before the first word of the thought, and another
one that at the verdict's anchor, behind the model's own thought; on the base weights and on the trained ones. They are
fitted on training families, choose their layer on development ones and are measured on held-out requests. What a probe
finds is there; that the model uses it, a probe does not show (Belinkov 2022, arXiv 2102.12452): the swaps do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from forethought.errors import InputError
from forethought.measure.probe_fit import STRENGTHS, Labels, choose_layer, fit_head
from forethought.metrics import Figure, auroc
from forethought.models.hidden_states import States, last_states, layer_count, prompt_ids
from forethought.research.inside.sample import area_figures, cells, main_group
from forethought.research.inside.thoughts import OnDone, Thought, need_thoughts, up_to_verdict

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

Position = Literal["prompt", "verdict"]
Weights = Literal["base", "trained"]
POSITIONS: tuple[Position, ...] = ("prompt", "verdict")
_DEPTHS = tuple(step / 10 for step in range(2, 11))
_CHUNK = 256
"""Texts read at a time, for progress."""


@dataclass(frozen=True)
class Probed:
    """A probe at one position of one set of weights, and what it says of the held-out requests."""

    position: Position
    weights: Weights
    layer: int
    """Chosen on development requests; 1 is the first."""
    auroc_dev: float
    """There; optimistic by the choice."""
    scores: tuple[float | None, ...]
    """Log-odds of harm of each held-out request; None where it could not be read."""
    by_layer: dict[int, float]
    """AUROC by layer on the held-out requests of `main_group`: for the plot. No choice rests on it."""


@dataclass(frozen=True)
class _Read:
    """Thoughts whose text could be read, and their states by layer, (rows, hidden size)."""

    places: list[int]
    harmful: Labels
    states: dict[int, States]


def probe_everywhere(
    model: LocalModel,
    fit: Sequence[Thought],
    dev: Sequence[Thought],
    held_out: Sequence[Thought],
    weights: Sequence[Weights] = ("base", "trained"),
    on_done: OnDone | None = None,
) -> list[Probed]:
    """A probe for each position and each set of weights. Deterministic.

    `on_done(n)` is told texts that were read. Raises InputError where fit or dev have one label alone.
    """
    n_layers = layer_count(model)
    layers = tuple(sorted({max(1, round(n_layers * depth)) for depth in _DEPTHS}))
    found = []
    for which in weights:
        for position in POSITIONS:
            parts = [_read(model, rows, position, which, layers, on_done) for rows in (fit, dev, held_out)]
            for part, noun in zip(parts[:2], ("fit on", "choose a layer on"), strict=True):
                if not part.harmful.any() or part.harmful.all():
                    raise InputError(
                        f"{len(part.harmful)} requests to {noun}", "hold one label alone", "Give more of both labels"
                    )
            found.append(_probed(parts, held_out, position, which))
    return found


def _probed(parts: Sequence[_Read], held_out: Sequence[Thought], position: Position, which: Weights) -> Probed:
    fit, dev, _ = parts
    area, layer, strength = choose_layer(fit.states, fit.harmful, dev.states, dev.harmful)
    scores = tuple(_scores(parts, layer, strength, len(held_out)))
    return Probed(position, which, layer, area, scores, _by_layer(parts, held_out))


def _scores(parts: Sequence[_Read], layer: int, strength: float, n_held_out: int) -> list[float | None]:
    """Log-odds of harm of the held-out requests, by a head that reads one layer; None where there is no state."""
    fit, _, test = parts
    weights, bias = fit_head(fit.states[layer], fit.harmful, strength)
    scores: list[float | None] = [None] * n_held_out
    for place, score in zip(test.places, test.states[layer] @ weights + bias, strict=True):
        scores[place] = float(score)
    return scores


def _by_layer(parts: Sequence[_Read], held_out: Sequence[Thought]) -> dict[int, float]:
    fit, dev, _ = parts
    asked = [one.asked for one in held_out]
    group, found = main_group(asked), {}
    for layer in fit.states:
        own = {layer: fit.states[layer]}
        _, _, strength = choose_layer(own, fit.harmful, {layer: dev.states[layer]}, dev.harmful, STRENGTHS)
        pairs = cells(asked, _scores(parts, layer, strength, len(held_out))).get(group, ())
        areas = [auroc(list(bad.values()), list(good.values())) for bad, good in pairs]
        found[layer] = float(np.mean(areas)) if areas else math.nan
    return found


def _read(
    model: LocalModel,
    thoughts: Sequence[Thought],
    position: Position,
    which: Weights,
    layers: Sequence[int],
    on_done: OnDone | None,
) -> _Read:
    texts = [_ids(model, one, position) for one in thoughts]
    places = [place for place, ids in enumerate(texts) if ids is not None]
    readable = [ids for ids in texts if ids is not None]
    parts: dict[int, list[States]] = {layer: [] for layer in layers}
    for start in range(0, len(readable), _CHUNK):
        chunk = readable[start : start + _CHUNK]
        for layer, states in last_states(model, chunk, layers, trained=which == "trained").items():
            parts[layer].append(states)
        if on_done is not None:
            on_done(len(chunk))
    harmful = np.array([bool(thoughts[place].request.harmful) for place in places], dtype=bool)
    empty = np.zeros((0, 1), dtype=np.float32)
    return _Read(places, harmful, {layer: np.concatenate(own) if own else empty for layer, own in parts.items()})


def _ids(model: LocalModel, thought: Thought, position: Position) -> list[int] | None:
    """Token ids up to where the state is read; None where the context does not hold them or there is no verdict."""
    ids = prompt_ids(model, thought.request.messages)
    if ids is None or position == "prompt":
        return ids
    if thought.log_odds is None:
        return None
    ids = ids + model.ids(up_to_verdict(thought.before, need_thoughts(model)))
    return ids if len(ids) <= model.context_tokens else None


def probe_figures(held_out: Sequence[Thought], probed: Sequence[Probed]) -> list[Figure]:
    """`inside_probe_POSITION_WEIGHTS_GROUP`: AUROC on held-out requests."""
    asked = [one.asked for one in held_out]
    return [
        figure
        for one in probed
        for figure in area_figures(f"inside_probe_{one.position}_{one.weights}", asked, one.scores)
    ]
