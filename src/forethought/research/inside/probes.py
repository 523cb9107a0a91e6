"""How much of the verdict can be decoded before the thought, along it, and at the verdict?

A logistic probe reads the hidden state at the prompt's last token, before the first word of the thought, and another
one that at the verdict's anchor, behind the model's own thought; on the base weights and on the trained ones. They
are fitted on training families, choose their layer on development ones and are measured on held-out requests. Where a
thought solves its request, others read it on the way there. What a probe finds is there; that the model uses it, a
probe does not show (Belinkov 2022, arXiv 2102.12452): the swaps do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from forethought.errors import InputError, ModelError
from forethought.measure.probe_fit import Labels, choose_layer, fit_head
from forethought.metrics import Figure, auroc
from forethought.models.hidden_states import States, last_states, layer_count, prompt_ids
from forethought.reasoning import solved_text
from forethought.research.inside.thoughts import (
    OnDone,
    Thought,
    area_figures,
    cells,
    main_group,
    need_thoughts,
    up_to_verdict,
)

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

Position = Literal["prompt", "resolved", "steps", "solved", "intent", "verdict"]
Weights = Literal["base", "trained"]
POSITIONS: tuple[Position, ...] = ("prompt", "verdict")
ALONG: tuple[Position, ...] = ("prompt", "resolved", "steps", "solved", "intent", "verdict")
"""Of a thought that solves: before it; right before the solved text is first written, in a step or behind them; after
the steps; after the solved text, the intent; at the verdict."""
_DEPTHS = tuple(step / 10 for step in range(2, 11))
_CHUNK = 256
"""Texts read at a time, for progress."""


def weights_of(model: LocalModel) -> tuple[Weights, ...]:
    """Which weights can be read: those that were trained, and the base model's where they are there."""
    try:
        with model.adapter_off():
            return ("base", "trained")
    except ModelError:
        return ("trained",)


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
    positions: Sequence[Position] = POSITIONS,
) -> list[Probed]:
    """A probe for each position and each set of weights. Deterministic.

    `on_done(n)` is told texts that were read. Raises InputError where fit or dev have one label alone.
    """
    n_layers = layer_count(model)
    layers = tuple(sorted({max(1, round(n_layers * depth)) for depth in _DEPTHS}))
    found = []
    for which in weights:
        read = [_read(model, rows, positions, which, layers, on_done) for rows in (fit, dev, held_out)]
        for position in positions:
            parts = [one[position] for one in read]
            for part, noun in zip(parts[:2], ("fit on", "choose a layer on"), strict=True):
                if not part.harmful.any() or part.harmful.all():
                    given = f"{len(part.harmful)} requests to {noun}"
                    raise InputError(given, "hold one label alone", "Give more of both labels")
            found.append(_probed(parts, held_out, position, which))
    return found


def _probed(parts: Sequence[_Read], held_out: Sequence[Thought], position: Position, which: Weights) -> Probed:
    fit, dev, test = parts
    asked = [one.asked for one in held_out]

    def scores(layer: int, strength: float) -> list[float | None]:
        """Log-odds of harm of the held-out requests, by a head that reads one layer; None where there is no state."""
        head, bias = fit_head(fit.states[layer], fit.harmful, strength)
        odds = dict(zip(test.places, test.states[layer] @ head + bias, strict=True))
        return [float(odds[place]) if place in odds else None for place in range(len(held_out))]

    by_layer = {}
    for one in fit.states:
        _, _, strength = choose_layer({one: fit.states[one]}, fit.harmful, {one: dev.states[one]}, dev.harmful)
        pairs = cells(asked, scores(one, strength)).get(main_group(asked), ())
        areas = [auroc(list(bad.values()), list(good.values())) for bad, good in pairs]
        by_layer[one] = float(np.mean(areas)) if areas else math.nan
    area, layer, strength = choose_layer(fit.states, fit.harmful, dev.states, dev.harmful)
    return Probed(position, which, layer, area, tuple(scores(layer, strength)), by_layer)


def _read(
    model: LocalModel,
    thoughts: Sequence[Thought],
    positions: Sequence[Position],
    which: Weights,
    layers: Sequence[int],
    on_done: OnDone | None,
) -> dict[Position, _Read]:
    """By position. All of a thought stand side by side, so that what they share is read once."""
    of_each = [prefixes(model, one, positions) for one in thoughts]
    texts = [(place, position, ids) for place, own in enumerate(of_each) for position, ids in own.items()]
    parts: dict[int, list[States]] = {layer: [] for layer in layers}
    for start in range(0, len(texts), _CHUNK):
        chunk = [ids for _, _, ids in texts[start : start + _CHUNK]]
        for layer, states in last_states(model, chunk, layers, trained=which == "trained").items():
            parts[layer].append(states)
        if on_done is not None:
            on_done(len(chunk))
    empty = np.zeros((0, 1), dtype=np.float32)
    whole = {layer: np.concatenate(own) if own else empty for layer, own in parts.items()}
    found = {}
    for position in positions:
        rows = [row for row, (_, where, _) in enumerate(texts) if where == position]
        places = [texts[row][0] for row in rows]
        harmful = np.array([bool(thoughts[place].request.harmful) for place in places], dtype=bool)
        found[position] = _Read(places, harmful, {layer: states[rows] for layer, states in whole.items()})
    return found


def prefixes(model: LocalModel, one: Thought, positions: Sequence[Position]) -> dict[Position, list[int]]:
    """Token ids of prompt and thought up to each position; those are left out that the thought or the context lacks."""
    prompt = prompt_ids(model, one.request.messages)
    if prompt is None:
        return {}
    turn = up_to_verdict(one.before, need_thoughts(model))
    found: dict[Position, list[int]] = {"prompt": prompt}
    if one.log_odds is not None:
        ids = model.ids(turn)
        for position, end in ends(turn).items() if set(positions) - set(POSITIONS) else ():
            found[position] = prompt + ids[: tokens_before(model, turn, end)]
        found["verdict"] = prompt + ids
    fitting = {place: ids for place, ids in found.items() if place == "prompt" or len(ids) <= model.context_tokens}
    return {position: fitting[position] for position in positions if position in fitting}


def ends(turn: str) -> dict[Position, int]:
    """Where in the characters of the model's turn a thought that solves has come how far; nothing of another."""
    text, intent = solved_text(turn), re.search(r"(?m)^Intent: .*$", turn)
    if not text or intent is None:
        return {}
    *_, asked = re.finditer(r"(?m)^Asked: .*$", turn)
    steps = [line.end() for line in re.finditer(r"(?m)^Step: .*$", turn)]
    return {
        "resolved": len(turn[: turn.index(text)].rstrip()),
        "steps": steps[-1] if steps else asked.start() - 1,
        "solved": asked.end(),
        "intent": intent.end(),
    }


def tokens_before(model: LocalModel, text: str, end: int) -> int:
    """How many tokens of a text begin before a character: the last of them holds the one before it."""
    offsets = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return sum(start < end for start, _ in offsets)


def probe_figures(held_out: Sequence[Thought], probed: Sequence[Probed]) -> list[Figure]:
    """`inside_probe_POSITION_WEIGHTS_GROUP`: AUROC on held-out requests."""
    asked = [one.asked for one in held_out]
    return [
        figure
        for one in probed
        for figure in area_figures(f"inside_probe_{one.position}_{one.weights}", asked, one.scores)
    ]
