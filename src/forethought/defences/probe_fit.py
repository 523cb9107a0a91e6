"""Fitting a linear probe: minutes on two cores for a small model, and no gradient of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from forethought.defences.linear_probe import PROBE_OF_THE_PROBE, LinearProbe, ProbeSettings
from forethought.defences.rule_fit import RULE_STRENGTHS, fit_rules
from forethought.engine.hidden_states import States, last_states, layer_count, prompt_ids
from forethought.errors import InputError
from forethought.evals.calibrate import kind_of, threshold_on
from forethought.evals.inside.heads import STRENGTHS, choose_layer, fit_head
from forethought.policy import Policy, default_policy
from forethought.records import Record, Request

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

_DEPTHS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
"""Where in the stack of layers harm was found to be the plainest."""
_CHUNK = 1024
"""Requests whose prompts are read at a time, for progress."""
Labels = NDArray[np.bool_]


class FitSettings(Record):
    """How to fit."""

    layers: tuple[int, ...] = ()
    """Layers to choose from, 1 being the first; empty: six at 60 to 85 % of the depth."""
    trained: bool = False
    """Whether to read the weights that were trained to think, and not the base's."""
    strengths: tuple[float, ...] = STRENGTHS
    """Inverse regularisations to choose from."""
    rule_strengths: tuple[float, ...] = RULE_STRENGTHS
    """The same, of what tells rules apart."""
    max_false_refusal: float = 0.02
    """Share of harmless development requests that the threshold may refuse."""
    max_false_refusal_lookalike: float = 0.10
    """The same for look-alikes."""


@dataclass(frozen=True)
class _Rows:
    """Requests with known labels and, by layer, their states (rows, hidden size)."""

    requests: list[Request]
    harmful: Labels
    states: dict[int, States]

    @property
    def rules(self) -> list[tuple[str, ...]]:
        """The rules that each breaks; none of harmless ones."""
        return [one.rules if one.harmful else () for one in self.requests]


def fit_probe(
    model: LocalModel,
    train: Sequence[Request],
    dev: Sequence[Request],
    policy: Policy | None = None,
    settings: FitSettings | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> LinearProbe:
    """A probe fitted on `train`; `dev`, of other families, chooses layer and strength and sets the threshold.

    Requests without a label are left out. Rules are learnt from harmful requests with known rules, against each other.
    `on_progress(n)` reports requests read. Deterministic. Raises InputError where harmful or harmless
    requests are missing on either side.
    """
    policy, settings = policy or default_policy(), settings or FitSettings()
    n_layers = layer_count(model)
    layers = settings.layers or tuple(sorted({max(1, round(n_layers * depth)) for depth in _DEPTHS}))
    if wrong := [layer for layer in layers if not 1 <= layer <= n_layers]:
        raise InputError(f"layer {wrong[0]}", f"the model has {n_layers}", f"Use 1 to {n_layers}")
    fitted_on, skipped_train = _read(model, train, layers, settings.trained, "training", on_progress)
    held_out, skipped_dev = _read(model, dev, layers, settings.trained, "development", on_progress)
    auroc, layer, strength = choose_layer(
        fitted_on.states, fitted_on.harmful, held_out.states, held_out.harmful, settings.strengths
    )
    harm, bias = fit_head(fitted_on.states[layer], fitted_on.harmful, strength)
    weights, biases = harm.astype(np.float32)[None], np.array([bias], dtype=np.float32)
    ruled = fit_rules(
        fitted_on.states, fitted_on.rules, held_out.states, held_out.rules, policy.rule_ids, settings.rule_strengths
    )
    if ruled is not None:
        weights, biases = np.concatenate([weights, ruled.weights]), np.concatenate([biases, ruled.biases])
    scores = (held_out.states[layer] @ weights[0] + biases[0]).tolist()
    limits = settings.max_false_refusal, settings.max_false_refusal_lookalike
    calibration = threshold_on(held_out.requests, scores, *limits)
    described = ProbeSettings(
        model=model.name,
        trained=settings.trained,
        layer=layer,
        policy=policy,
        rules=ruled.rules if ruled is not None else (),
        rule_layer=ruled.layer if ruled is not None else 0,
        right_dev=ruled.right_dev if ruled is not None else None,
        threshold=calibration.threshold,
        calibration=calibration,
        auroc_dev=auroc,
        strength=strength,
        rows=dict(sorted(Counter(kind_of(request) for request in fitted_on.requests).items())),
        skipped=skipped_train + skipped_dev,
        reference=(0.0,) * len(biases),
    )
    reference = LinearProbe(described, weights, biases).log_odds(model, [PROBE_OF_THE_PROBE])[0]
    described = described.model_copy(update={"reference": tuple(float(value) for value in reference)})
    return LinearProbe(described, weights, biases)


def _read(
    model: LocalModel,
    requests: Sequence[Request],
    layers: Sequence[int],
    trained: bool,
    noun: str,
    on_progress: Callable[[int], None] | None,
) -> tuple[_Rows, int]:
    """Labelled requests with their states, and how many could not be read."""
    labelled = [request for request in requests if request.harmful is not None]
    prompts = [prompt_ids(model, request.messages) for request in labelled]
    kept = [request for request, ids in zip(labelled, prompts, strict=True) if ids is not None]
    harmful = np.array([bool(request.harmful) for request in kept], dtype=bool)
    if not harmful.any() or harmful.all():
        raise InputError(
            f"{len(kept)} {noun} requests", "hold no harmful or no harmless one", "Give both, with their labels"
        )
    readable = [ids for ids in prompts if ids is not None]
    parts: dict[int, list[States]] = {layer: [] for layer in layers}
    for start in range(0, len(readable), _CHUNK):
        chunk = readable[start : start + _CHUNK]
        for layer, states in last_states(model, chunk, layers, trained).items():
            parts[layer].append(states)
        if on_progress is not None:
            on_progress(len(chunk))
    found = {layer: np.concatenate(states) for layer, states in parts.items()}
    return _Rows(kept, harmful, found), len(labelled) - len(kept)
