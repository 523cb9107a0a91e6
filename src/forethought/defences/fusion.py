"""How several readings of one request become one score, and where that is stored.

Stored as `fusion.json` beside the probe's own two files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from forethought.defences.linear_probe import LinearProbe, load_probe
from forethought.errors import InputError
from forethought.evals.calibrate import Calibration
from forethought.manifest import write_json
from forethought.records import Record

FUSION = "fusion.json"


class Fusion(Record):
    """How up to three log-odds become one score: the verdict's, the probe's of the request, the probe's of the intent.

    Each is standardised on the development requests and weighted; the weights sum to one.
    """

    version: int = 1
    model: str
    """Name of the model whose verdicts it was fitted on."""
    weight: float = Field(ge=0.0, le=1.0)
    """Of the verdict."""
    intent_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    """Of the intent that the thought states; the request as it was put has the rest."""
    reads_intent: bool = False
    """Whether the probe reads the stated intent: for the score, and for the rule that a refusal names."""
    verdict_mean: float
    verdict_scale: float = Field(gt=0.0)
    """Mean and standard deviation of the verdict's log-odds on the development requests."""
    probe_mean: float
    probe_scale: float = Field(gt=0.0)
    """The same of the probe's, on the request."""
    intent_mean: float = 0.0
    intent_scale: float = Field(default=1.0, gt=0.0)
    """The same of the probe's, on the stated intent."""
    threshold: float
    """Fused score from which to refuse."""
    calibration: Calibration
    """What the threshold did on the development requests."""
    auroc_dev: float
    """Of the fused score on the development requests: optimistic by the choice of the weights."""
    auroc_dev_verdict: float
    """Of the verdict alone."""
    auroc_dev_probe: float
    """Of the probe on the request alone."""
    auroc_dev_intent: float | None = None
    """Of the probe on the stated intent alone."""
    n_calibration: int = Field(ge=2)
    """Development requests with both scores, which it was fitted on."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.weight + self.intent_weight > 1.0 + 1e-9:
            raise ValueError("the weights are more than one together")
        return self

    def parts(self, verdict: float, probe: float, intent: float | None = None) -> tuple[float, float]:
        """What the verdict and what the probe adds to the score; their sum is the fused score.

        Without an intent the request stands for it: what is not read twice decides as if both readings agreed.
        """
        request = (probe - self.probe_mean) / self.probe_scale
        stated = request if intent is None else (intent - self.intent_mean) / self.intent_scale
        rest = 1 - self.weight - self.intent_weight
        return (
            self.weight * (verdict - self.verdict_mean) / self.verdict_scale,
            rest * request + self.intent_weight * stated,
        )

    def save(self, folder: Path, probe: LinearProbe) -> None:
        """Writes the probe's files and, last, the fusion's."""
        probe.save(folder)
        write_json(folder / FUSION, self.model_dump(mode="json"))


def load_fusion(folder: Path) -> tuple[Fusion, LinearProbe]:
    """Reads what `Fusion.save` wrote. Raises InputError where it is not there or damaged."""
    file = folder / FUSION
    if not file.is_file():
        raise InputError(folder, "holds no fusion of verdict and probe", "Fit one: fit_fusion(...).save(FOLDER, probe)")
    try:
        fusion = Fusion.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        raise InputError(file, f"is damaged ({str(error).splitlines()[0]})", "Fit it again") from None
    return fusion, load_probe(folder)
