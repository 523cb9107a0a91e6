"""The operating point of a model that thinks, set on development rows and written beside its weights."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from forethought.data.select import sample
from forethought.engine.conversation import Conversation, Response
from forethought.engine.local import LocalModel, read_settings, write_settings
from forethought.evals.calibrate import KINDS, Calibration, threshold_on
from forethought.pipeline.recipe import OperatingPoint
from forethought.progress import Bar
from forethought.records import Message, Record, Request, read_jsonl, write_jsonl

_CALIBRATION, _THOUGHTS = "calibration.json", "thoughts.jsonl"


class Thought(Record):
    """What a model thought of a development row."""

    messages: tuple[Message, ...]
    response: Response


def development_rows(dev: Sequence[Request], point: OperatingPoint, fewest: int = 0) -> list[Request]:
    """The rows that the threshold is set on: of each kind a third, or `fewest` where that is more."""
    most = max(point.rows // 3, fewest)
    return [row for kind in KINDS for row in sample([r for r in dev if r.kind == kind], most)]


def calibrate(model: LocalModel, dev: Sequence[Request], point: OperatingPoint, out: Path, bar: Bar) -> Calibration:
    """The threshold that a recipe's limits ask for, from the verdicts on development rows.

    Writes it into `out`, and the thoughts beside it: what else is fitted on these rows need not think them again.
    """
    rows = development_rows(dev, point)
    bar.total(len(rows))
    responses = model.think([row.messages for row in rows], on_done=bar.advance)
    thoughts = [Thought(messages=row.messages, response=said) for row, said in zip(rows, responses, strict=True)]
    write_jsonl(out / _THOUGHTS, thoughts)
    chosen = _chosen(rows, responses, point)
    (out / _CALIBRATION).write_text(chosen.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return chosen


def take_over(lent: Path, out: Path) -> Calibration | None:
    """Copies what `calibrate` wrote for the same weights; None where it wrote nothing there."""
    if not (lent / _CALIBRATION).is_file():
        return None
    for file in (lent / _CALIBRATION, lent / _THOUGHTS):
        if file.is_file():  # thoughts were not always kept
            shutil.copy2(file, out)
    return read_calibration(out)


def read_calibration(folder: Path) -> Calibration:
    """What `calibrate` wrote."""
    return Calibration.model_validate_json((folder / _CALIBRATION).read_text(encoding="utf-8"))


def recall(model: LocalModel, folder: Path) -> None:
    """Lets a model know again what it thought when it was calibrated, where that was kept."""
    file = folder / _THOUGHTS
    for one in read_jsonl(file, Thought) if file.is_file() else ():
        model.known_replies[(Conversation(messages=one.messages), 0)] = one.response


def _chosen(rows: Sequence[Request], responses: Sequence[Response], point: OperatingPoint) -> Calibration:
    told = [(row, said.log_odds) for row, said in zip(rows, responses, strict=True) if said.log_odds is not None]
    scored, odds = [row for row, _ in told], [score for _, score in told]
    return threshold_on(scored, odds, point.max_false_refusal, point.max_false_refusal_lookalike)


def set_threshold(adapter: Path, chosen: Calibration) -> None:
    """Writes the threshold into the settings beside a trained model."""
    settings = read_settings(adapter)
    update = {"threshold": chosen.threshold, "threshold_note": str(chosen)}
    write_settings(adapter, settings.model_copy(update=update))
