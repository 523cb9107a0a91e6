"""Stages that fit what decides beside a verdict: the probe, and the fusion of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.defences.fused_fit import FusionSettings, fit_fusion
from forethought.defences.linear_probe import load_probe
from forethought.defences.probe_fit import FitSettings, fit_probe
from forethought.engine.local import LocalModel
from forethought.pipeline.operating import development_rows
from forethought.pipeline.recipe import OperatingPoint
from forethought.pipeline.stage import StageRunner
from forethought.policy import Policy
from forethought.progress import Progress
from forethought.records import Request

FUSED, FUSED_INTENT, FUSED_TRAINED = "fused", "fused_intent", "fused_trained"
FUSIONS = (FUSED, FUSED_INTENT, FUSED_TRAINED)
PROBE, TRAINED_PROBE, HEADED = "linear_probe", "trained_probe", "headed_thought"
FITTED = (PROBE, TRAINED_PROBE, HEADED, *FUSIONS)
"""Defences at inference that a pipeline fits itself, where they are given no folder."""
READS_INTENT = (FUSED_INTENT, FUSED_TRAINED)
"""Fusions whose probe reads the stated intent as well, and is fitted on intents for that."""
_FUSED_ON = 240
"""Development rows of a kind that a fusion is fitted on, or as many as the threshold is set on where that is more."""
Model = Callable[[], LocalModel]
"""Opens a model; called only where something has to be fitted."""


def probe_stage(
    name: str,
    model: Model,
    rows: Sequence[Request],
    dev: Sequence[Request],
    policy: Policy,
    stages: StageRunner,
    progress: Progress,
    trained: bool = False,
) -> Path:
    """The folder of a probe on the base weights of `model`, or the trained ones, fitted on `rows`; `dev` chooses the
    layer."""

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(rows) + len(dev))
        probe = fit_probe(model(), rows, dev, policy, FitSettings(trained=trained), bar.advance)
        probe.save(out)
        return {"layer": probe.settings.layer, "auroc_dev": round(probe.settings.auroc_dev, 3)}

    with progress.bar("fit the probe") as bar:
        return stages.run(name, {"train": len(rows), "dev": len(dev)} | ({"trained": True} if trained else {}), work)


def fusion_stage(
    name: str,
    kind: str,
    probe: Callable[[], Path],
    model: Model,
    dev: Sequence[Request],
    point: OperatingPoint,
    stages: StageRunner,
    progress: Progress,
) -> Path:
    """The folder of a fusion (`kind`: FUSED, FUSED_INTENT or FUSED_TRAINED) of a model's verdict with a probe, whose
    folder `probe` tells, where it has to be fitted.

    Weights and threshold rest on all the rows that the operating point has, with its limits on false refusals.
    """
    rows = development_rows(dev, point, _FUSED_ON)
    settings = FusionSettings(
        max_false_refusal=point.max_false_refusal,
        max_false_refusal_lookalike=point.max_false_refusal_lookalike,
        read_intent=kind in READS_INTENT,
    )

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(rows))
        found = load_probe(probe())
        fusion = fit_fusion(model(), found, rows, settings, on_done=bar.advance)
        fusion.save(out, found)
        weights = {"weight": fusion.weight, "intent_weight": fusion.intent_weight}
        return weights | {"auroc_dev": round(fusion.auroc_dev, 3)}

    with progress.bar("fuse verdict and probe") as bar:
        said = {"fitted_on": [row.id for row in rows], "settings": settings.model_dump(mode="json")}
        return stages.run(name, said, work)
