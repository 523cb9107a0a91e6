"""One cell of a sweep: a defence on one base, seed and budget, with its stages in a folder of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.attempts.records import Attempt, Judged
from forethought.attempts.respond import run_defence
from forethought.manifest import key_of
from forethought.models.conversation import Respondent
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings, write_settings
from forethought.pipeline.fitting import calibrate, read_calibration, set_threshold, take_over
from forethought.pipeline.stage import StageRunner
from forethought.progress import Progress
from forethought.records import read_jsonl, write_jsonl
from forethought.research.config import MethodEntry, Sweep, method_of
from forethought.research.material import Ground
from forethought.training.config import TrainConfig
from forethought.training.methods.base import Job, Material, TrainingMethod
from forethought.training.run import method_rows, train_method

TRAIN, CALIBRATE, ATTACK, QUESTIONS = "train", "calibrate", "attack", "questions"
_JUDGED, _TOKENS = "judged.jsonl", "max_answer_tokens"
Defended = Callable[[], Respondent]
"""Opens the defended model; called only where something has to be asked."""


@dataclass(frozen=True)
class Trained:
    """What training a cell came to."""

    adapter: Path
    tokens: int
    """All passes together."""
    seconds: float
    """With those of the weights that it shares, if it does."""
    thinks: bool
    seen: tuple[str, ...]
    """Styles and attacks that it was trained on."""


def train_cell(
    sweep: Sweep,
    ground: Ground,
    entry: MethodEntry,
    budget: int,
    material: Callable[[bool], Material],
    stages: StageRunner,
    shared: Trained | None,
    progress: Progress,
) -> Trained:
    """Trains by a method within the budget and sets the threshold where there is a verdict.

    `material(complied)` gives the rows, with the base's own harmful answers where they are needed. `shared` are
    weights that are this method's as well.
    """
    method, config = method_of(sweep, entry, ground.base, ground.seed)

    def work(out: Path) -> dict[str, Any]:
        given = material(method.needs_complied)
        if shared is not None:
            return _copied(shared.adapter, out, method)
        a_pass = round(budget / entry.passes)
        fitted = _fitted(method, given, config, budget, a_pass, max(entry.passes, sweep.most_passes))
        counts = train_method(Job(ground.base, method, given, fitted, out, a_pass, bar.step, progress.say))
        return {**counts, "tokens": float(counts["tokens"]), "passes": fitted.epochs}

    beside = {"around", "why", "seeds", "threshold"}  # the rest changes the weights
    trained_by = entry.model_dump(mode="json", exclude=beside)
    said = {"method": trained_by, "budget": budget, "train": config.model_dump(mode="json")}
    with progress.bar(f"train {method.name}") as bar:
        folder = stages.run(TRAIN, said, work, keep_partial=True)
    settings = read_settings(folder)
    lender = shared.adapter if shared is not None else None
    if settings.thinks:
        if entry.threshold is None:
            _set_operating_point(sweep, ground, folder, lender, stages, progress)
        else:
            _set_given(entry.threshold, folder, stages)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return Trained(
        adapter=folder,
        tokens=round(manifest["counts"].get("tokens", 0)),
        seconds=float(manifest["seconds"]) + (shared.seconds if shared is not None else 0.0),
        thinks=settings.thinks,
        seen=settings.seen_operators,
    )


def _fitted(
    method: TrainingMethod, material: Material, config: TrainConfig, budget: int, a_pass: int, most_passes: float
) -> TrainConfig:
    """The settings with as many passes as the budget pays for, over the rows that `a_pass` tokens are enough for. A
    procedure shares its budget out by itself."""
    if method.procedure is not None:
        return config
    taken = sum(row.tokens for row in method_rows(method, material, a_pass))
    passes = min(most_passes, max(1.0, budget / taken))
    return config.model_copy(update={"epochs": round(passes, 2)})


def _copied(shared: Path, out: Path, method: TrainingMethod) -> dict[str, Any]:
    """Another method's weights, with this one's way of answering beside them."""
    for file in shared.iterdir():
        if file.is_file() and file.name != "manifest.json":
            shutil.copy2(file, out / file.name)
    settings = read_settings(out)
    write_settings(out, settings.model_copy(update={"method": method.name, "answer_with": method.answer_with}))
    counts: dict[str, Any] = json.loads((shared / "manifest.json").read_text(encoding="utf-8"))["counts"]
    return counts


def _set_operating_point(
    sweep: Sweep, ground: Ground, adapter: Path, shared: Path | None, stages: StageRunner, progress: Progress
) -> None:
    """On development rows; the weights of `shared` have thought about these already."""

    def work(out: Path) -> dict[str, Any]:
        chosen = take_over(shared.with_name(CALIBRATE), out) if shared is not None else None
        if chosen is None:
            chosen = calibrate(LocalModel.load(ground.base, adapter), ground.dev, sweep.operating_point, out, bar)
        return {"threshold": round(chosen.threshold, 3)}

    with progress.bar("calibrate") as bar:
        folder = stages.run(CALIBRATE, sweep.operating_point.model_dump(mode="json"), work)
    set_threshold(adapter, read_calibration(folder))


def _set_given(threshold: float, adapter: Path, stages: StageRunner) -> None:
    def work(out: Path) -> dict[str, Any]:
        return {"threshold": threshold}

    stages.run(CALIBRATE, {"given": threshold}, work)
    settings = read_settings(adapter)
    write_settings(adapter, settings.model_copy(update={"threshold": threshold, "threshold_note": "given by hand"}))


def attack_cell(
    name: str, sweep: Sweep, ground: Ground, defended: Defended, stages: StageRunner, progress: Progress
) -> list[Judged]:
    """Puts every attempt to a defence; judged attempts in the plan's order."""
    return _asked(ground.stage(ATTACK), name, ground.attempts, sweep, defended, stages, progress)


def said_before(sweep: Sweep, ground: Ground, stages: StageRunner) -> list[Judged]:
    """What a cell's weights were heard to say since they were trained, under whatever operating point.

    To be read before the attack's stage runs again, since that starts from nothing.
    """
    trained, attacked = stages.manifest(TRAIN), stages.manifest(ground.stage(ATTACK))
    made, heard = trained.get("finished", ""), attacked.get("finished", "")
    same_length = attacked.get("config", {}).get(_TOKENS) == sweep.evaluate.max_answer_tokens
    if not made or heard <= made or not same_length:
        return []
    return list(read_jsonl(stages.folder / ground.stage(ATTACK) / _JUDGED, Judged))


def question_cell(
    name: str, sweep: Sweep, ground: Ground, defended: Defended, stages: StageRunner, progress: Progress
) -> list[Judged]:
    """Puts the further short questions to a defence: a stage of its own, so that the attack keeps its answers."""
    return _asked(QUESTIONS, name, ground.questions, sweep, defended, stages, progress)


def _asked(
    stage: str, name: str, attempts: Sequence[Attempt], sweep: Sweep, defended: Defended, stages: StageRunner,
    progress: Progress,
) -> list[Judged]:  # fmt: skip
    config = {
        "attempts": key_of([(one.id, one.asked, one.cells) for one in attempts]),
        _TOKENS: sweep.evaluate.max_answer_tokens,
    }

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(attempts))
        tokens = sweep.evaluate.max_answer_tokens
        rows = run_defence(name, defended(), attempts, out / "logs", None, tokens, bar.advance)
        write_jsonl(out / _JUDGED, rows)
        return {"attempts": len(rows), "unscored": sum(row.refused is None for row in rows)}

    with progress.bar(f"{stage} {name}") as bar:
        folder = stages.run(stage, config, work, keep_partial=True)
    return list(read_jsonl(folder / _JUDGED, Judged))
