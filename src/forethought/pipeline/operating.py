"""The operating point of a model that thinks, set on development rows and written beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forethought.data.select import sample
from forethought.engine.local import LocalModel, read_settings, write_settings
from forethought.evals.calibrate import Calibration, choose_threshold
from forethought.pipeline.recipe import OperatingPoint
from forethought.records import Request

KINDS = ("harmful", "ordinary", "lookalike")


def development_rows(dev: Sequence[Request], point: OperatingPoint) -> list[Request]:
    """The rows that the threshold is set on: of each kind a third."""
    return [row for kind in KINDS for row in sample([r for r in dev if r.kind == kind], point.rows // 3)]


def calibrate(
    model: LocalModel, rows: Sequence[Request], point: OperatingPoint, on_done: Callable[[int], None] | None = None
) -> Calibration:
    """The threshold that a recipe's limits ask for, from the verdicts on `rows`."""
    responses = model.think([row.messages for row in rows], on_done=on_done)
    odds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for row, response in zip(rows, responses, strict=True):
        if response.log_odds is not None:
            odds[row.kind].append(response.log_odds)
    return choose_threshold(
        odds["harmful"],
        odds["ordinary"],
        odds["lookalike"],
        point.max_false_refusal,
        point.max_false_refusal_lookalike,
    )


def set_threshold(adapter: Path, chosen: Calibration) -> None:
    """Writes the threshold into the settings beside a trained model."""
    settings = read_settings(adapter)
    update = {"threshold": chosen.threshold, "threshold_note": str(chosen)}
    write_settings(adapter, settings.model_copy(update=update))
