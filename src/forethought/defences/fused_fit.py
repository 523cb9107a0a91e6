"""Fitting a fusion: development requests standardise the scores, and choose weights and threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from forethought.defences.fusion import Fusion
from forethought.defences.linear_probe import LinearProbe
from forethought.defences.stated_intent import read_intents
from forethought.engine.conversation import Conversation, Failed
from forethought.errors import InputError, ModelError
from forethought.evals.calibrate import KINDS, kind_of, threshold_on
from forethought.evals.estimate import Array
from forethought.evals.metrics import auroc
from forethought.records import Record, Request

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

_STEPS = 20
_WEIGHTS = tuple((v / _STEPS, i / _STEPS) for v in range(_STEPS + 1) for i in range(_STEPS + 1 - v))
"""(verdict's, stated intent's); the request has the rest."""


class FusionSettings(Record):
    """How to fit."""

    max_false_refusal: float = 0.02
    """Share of harmless development requests that the threshold may refuse."""
    max_false_refusal_lookalike: float = 0.10
    """The same for look-alikes."""
    read_intent: bool = False
    """Whether the probe reads the intent that the thought states as well; it has to be fitted on intents, too
    (`stated_intent.intent_requests`)."""


def fit_fusion(
    model: LocalModel,
    probe: LinearProbe,
    dev: Sequence[Request],
    settings: FusionSettings | None = None,
    on_done: Callable[[int], None] | None = None,
) -> Fusion:
    """A fusion for a model that thinks and a probe on its base weights, or its own.

    `dev` has to hold both labels; scores are standardised on all of its requests. `on_done(n)` is told finished
    thoughts. Raises InputError where a label has no request with both scores, or scores don't differ, ModelError for a
    model that doesn't think or other weights than the probe's.
    """
    settings = settings or FusionSettings()
    if not model.thinks:
        raise ModelError(model.name, "does not think: it has no verdict to fuse", "Give a scot model")
    probe.check_model(model)
    labelled = [request for request in dev if request.harmful is not None]
    found, rows = _scored(model, probe, labelled, settings.read_intent, on_done)
    kinds = np.array([kind_of(row) for row in rows])
    if not (kinds == "harmful").any() or (kinds == "harmful").all():
        raise InputError(f"{len(rows)} development requests", "hold no harmful or no harmless one", "Give both")
    mean, scale = _spread(found)
    if (scale < 1e-6).any():
        raise InputError(f"{len(rows)} development requests", "give no spread of scores", "Give more, some dozens")
    found = (found - mean) / scale
    found[:, 2] = np.where(np.isnan(found[:, 2]), found[:, 1], found[:, 2])  # as `Fusion.parts` does
    areas = {one: _area(_mixed(found, one), kinds) for one in _WEIGHTS if settings.read_intent or not one[1]}
    weights = _evenest(areas, int((kinds == "harmful").sum()), int((kinds != "harmful").sum()), settings.read_intent)
    scores = _mixed(found, weights).tolist()
    chosen = threshold_on(rows, scores, settings.max_false_refusal, settings.max_false_refusal_lookalike)
    return Fusion(
        model=model.name,
        weight=weights[0],
        intent_weight=weights[1],
        reads_intent=settings.read_intent,
        verdict_mean=float(mean[0]),
        verdict_scale=float(scale[0]),
        probe_mean=float(mean[1]),
        probe_scale=float(scale[1]),
        intent_mean=float(mean[2]),
        intent_scale=float(scale[2]),
        threshold=chosen.threshold,
        calibration=chosen,
        auroc_dev=areas[weights],
        auroc_dev_verdict=areas[1.0, 0.0],
        auroc_dev_probe=areas[0.0, 0.0],
        auroc_dev_intent=areas.get((0.0, 1.0)),
        n_calibration=len(rows),
    )


def _evenest(
    areas: Mapping[tuple[float, float], float], n_harmful: int, n_harmless: int, read_intent: bool
) -> tuple[float, float]:
    """The most even weights whose area is at most one standard error below the best.

    Even is half for each reading: of the message as it stands, which verdict and probe share, and of the stated intent.
    Development requests come in styles that were trained on, where the best part alone looks best. Parts that err
    apart hold better together in styles that were not, so that only what is plainly worse gets less than its share.
    And an unknown disguise lowers what the message scores, harmful or not, and leaves what the intent scores.
    """
    best = max(areas.values())
    floor = best - standard_error(best, n_harmful, n_harmless)
    good = [one for one, area in areas.items() if area >= floor - 1e-9]

    def unevenness(one: tuple[float, float]) -> float:
        verdict, intent = one
        even = (1 / 4, 1 / 4, 1 / 2) if read_intent else (1 / 2, 1 / 2, 0.0)
        return sum((has - due) ** 2 for has, due in zip((verdict, 1 - verdict - intent, intent), even, strict=True))

    return min(good, key=lambda one: (round(unevenness(one), 9), -one[0], -one[1]))


def standard_error(area: float, n_harmful: int, n_harmless: int) -> float:
    """Of an AUROC, by Hanley and McNeil 1982 (Radiology 143:29)."""
    both_harmful, both_harmless = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (n_harmful - 1) * (both_harmful - area**2) + (n_harmless - 1) * (both_harmless - area**2)
    ) / (n_harmful * n_harmless)
    return math.sqrt(max(variance, 0.0))


def _scored(
    model: LocalModel,
    probe: LinearProbe,
    requests: Sequence[Request],
    read_intent: bool,
    on_done: Callable[[int], None] | None,
) -> tuple[Array, list[Request]]:
    """(requests, 3), log-odds of verdict, request and stated intent, and the requests; without verdict or probe they
    are left out. Where there is no intent, or none is to be read, its column is nan."""
    messages = [request.messages for request in requests]
    told = None if on_done is None else lambda place, reply: on_done(1)
    replies = model.reply([Conversation(messages=one) for one in messages], 0, told)
    responses = [None if isinstance(reply, Failed) else reply for reply in replies]
    verdicts = [None if one is None else one.log_odds for one in responses]
    odds = probe.log_odds(model, messages)[:, 0].astype(np.float64)
    stated = read_intents(probe, model, responses) if read_intent else [None] * len(odds)
    intents = [np.nan if row is None else float(row[0]) for row in stated]
    scores = np.stack([np.array([np.nan if one is None else one for one in verdicts]), odds, np.array(intents)], axis=1)
    kept = ~np.isnan(scores[:, :2]).any(axis=1)
    return scores[kept], [request for request, keep in zip(requests, kept, strict=True) if keep]


def _spread(scores: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column; a column without a number has those of the requests."""
    filled = scores.copy()
    if np.isnan(filled[:, 2]).all():
        filled[:, 2] = filled[:, 1]
    return np.nanmean(filled, axis=0), np.nanstd(filled, axis=0)


def _mixed(standardised: Array, weights: tuple[float, float]) -> Array:
    verdict, intent = weights
    mixed: Array = standardised @ np.array([verdict, 1 - verdict - intent, intent])
    return mixed


def _area(scores: Array, kinds: NDArray[np.str_]) -> float:
    """AUROC of the harmful requests against each kind of harmless ones, in the mean: look-alikes are few, and count."""
    harmful = list(scores[kinds == "harmful"])
    others = [kind for kind in KINDS if kind != "harmful" and (kinds == kind).any()]
    return float(np.mean([auroc(harmful, list(scores[kinds == kind])) for kind in others]))
