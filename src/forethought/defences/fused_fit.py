"""Fitting a fusion: standardise on calibration requests, choose weight and threshold on development requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from forethought.defences.fused import Fusion
from forethought.defences.linear_probe import LinearProbe
from forethought.engine.conversation import Conversation, Failed
from forethought.errors import InputError, ModelError
from forethought.evals.calibrate import Calibration, choose_threshold
from forethought.evals.estimate import Array
from forethought.evals.metrics import auroc
from forethought.records import Record, Request

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

_WEIGHTS = tuple(step / 20 for step in range(21))
_FEWEST = 2


class FusionSettings(Record):
    """How to fit."""

    max_false_refusal: float = 0.02
    """Share of harmless development requests that the threshold may refuse."""
    max_false_refusal_lookalike: float = 0.10
    """The same for look-alikes."""


def fit_fusion(
    model: LocalModel,
    probe: LinearProbe,
    calibration: Sequence[Request],
    dev: Sequence[Request],
    settings: FusionSettings | None = None,
    on_done: Callable[[int], None] | None = None,
) -> Fusion:
    """A fusion for a model that thinks and a probe on its base weights.

    `calibration` needs no labels; both labels are needed in `dev`, of other requests. `on_done(n)` is told finished
    thoughts. Raises InputError where too few have both scores, or scores that don't differ, ModelError for a model
    that doesn't think or other base weights than the probe's.
    """
    settings = settings or FusionSettings()
    if not model.thinks:
        raise ModelError(model.name, "does not think: it has no verdict to fuse", "Give a scot model")
    probe.check_model(model)
    standard = _scored(model, probe, calibration, on_done)[0]
    if len(standard) < _FEWEST or (standard.std(axis=0) < 1e-6).any():
        raise InputError(f"{len(standard)} calibration requests", "give no spread of scores", "Give more, some dozens")
    mean, scale = standard.mean(axis=0), standard.std(axis=0)
    found, rows = _scored(model, probe, [request for request in dev if request.harmful is not None], on_done)
    found = (found - mean) / scale
    harmful = np.array([bool(request.harmful) for request in rows], dtype=bool)
    if not harmful.any() or harmful.all():
        raise InputError(f"{len(rows)} development requests", "hold no harmful or no harmless one", "Give both")
    areas = {weight: _area(_mixed(found, weight), harmful) for weight in _WEIGHTS}
    # Among equals the verdict gets the most: it comes with a reason.
    weight = max(areas, key=lambda one: (round(areas[one], 6), one))
    chosen = _threshold(_mixed(found, weight), rows, settings)
    return Fusion(
        model=model.name,
        weight=weight,
        verdict_mean=float(mean[0]),
        verdict_scale=float(scale[0]),
        probe_mean=float(mean[1]),
        probe_scale=float(scale[1]),
        threshold=chosen.threshold,
        calibration=chosen,
        auroc_dev=areas[weight],
        auroc_dev_verdict=areas[1.0],
        auroc_dev_probe=areas[0.0],
        n_calibration=len(standard),
    )


def _threshold(scores: Array, rows: Sequence[Request], settings: FusionSettings) -> Calibration:
    of_kind = {kind: [float(s) for s, row in zip(scores, rows, strict=True) if _kind(row) == kind] for kind in _KINDS}
    return choose_threshold(
        of_kind["harmful"],
        of_kind["ordinary"],
        of_kind["lookalike"],
        settings.max_false_refusal,
        settings.max_false_refusal_lookalike,
    )


_KINDS = ("harmful", "lookalike", "ordinary")


def _kind(request: Request) -> str:
    if request.harmful:
        return "harmful"
    return "lookalike" if request.kind == "lookalike" else "ordinary"


def _scored(
    model: LocalModel, probe: LinearProbe, requests: Sequence[Request], on_done: Callable[[int], None] | None
) -> tuple[Array, list[Request]]:
    """(requests, 2), log-odds of verdict and probe, and the requests; those that lack one of the two are left out."""
    messages = [request.messages for request in requests]
    told = None if on_done is None else lambda place, reply: on_done(1)
    replies = model.reply([Conversation(messages=one) for one in messages], 0, told)
    verdicts = [None if isinstance(reply, Failed) else reply.log_odds for reply in replies]
    odds = probe.log_odds(model, messages)[:, 0].astype(np.float64)
    both = np.stack([np.array([np.nan if one is None else one for one in verdicts]), odds], axis=1)
    kept = ~np.isnan(both).any(axis=1)
    return both[kept], [request for request, keep in zip(requests, kept, strict=True) if keep]


def _mixed(standardised: Array, weight: float) -> Array:
    mixed: Array = weight * standardised[:, 0] + (1 - weight) * standardised[:, 1]
    return mixed


def _area(scores: Array, harmful: NDArray[np.bool_]) -> float:
    return auroc(list(scores[harmful]), list(scores[~harmful]))
