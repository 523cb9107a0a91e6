"""One cell of a sweep: a defence on one base, seed and budget, with its stages in a folder of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from forethought.attacks.searches.base import Goal, Tools, opening_of, parse_method
from forethought.attacks.searches.driver import Parties, read_outcomes, run_searches
from forethought.attacks.searches.outcome import Outcome, SearchProgress, SearchSettings
from forethought.attempts.records import Attempt, Judged
from forethought.errors import StageError
from forethought.judges.catalogue import default_judge
from forethought.manifest import key_of, write_json
from forethought.metrics import Figure
from forethought.models.conversation import Conversation, Failed, Respondent
from forethought.models.local import LocalModel
from forethought.models.machine import machine
from forethought.models.settings import read_settings, write_settings
from forethought.pipeline.fitting import JUDGED, ask_stage, calibrate, read_calibration, set_threshold, take_over
from forethought.pipeline.stage import StageRunner
from forethought.progress import Progress
from forethought.reasoning import Format
from forethought.records import Record, read_jsonl
from forethought.research.config import MethodEntry, SearchConfig, Sweep, method_of
from forethought.research.setting import Setting, slug
from forethought.training.methods.base import Job, TrainingMethod
from forethought.training.run import train_method

TRAIN, CALIBRATE, ATTACK, QUESTIONS, LATENCY = "train", "calibrate", "attack", "questions", "latency"
_TOKENS, _GCG = "max_answer_tokens", "gcg"


class Cell(Record):
    """A defence on one base, seed and budget, and what came of it.

    Its dump is a line of a sweep's log, without a word of text: the attempts stand in a table beside it.
    """

    defence: str
    title: str
    base: str
    seed: int
    budget: int = 0
    """Training tokens that it was allowed; 0 for a defence that is not trained."""
    note: str = ""
    key: str = ""
    """Of everything in the sweep that its answers depend on."""
    trained: bool = False
    thinks: bool = False
    tokens: int = 0
    """Of all passes of training together."""
    train_seconds: float = 0.0
    """With those of the weights that it shares, if it does."""
    seen: tuple[str, ...] = ()
    """Styles and attacks that it was trained on."""
    latency: tuple[float, ...] = ()
    """Times as long as the undefended model that it took, by request."""
    outcomes: dict[str, tuple[Outcome, ...]] = Field(default_factory=dict)
    """By adaptive attack."""
    of_text: tuple[Figure, ...] = ()
    """In a log: its figures that rest on text, which no log holds."""
    understood: tuple[Figure, ...] | None = None
    """In a log, of the base model alone: how well it understands each style, by its name; None where it doesn't say."""
    seconds: float = 0.0
    """Of all its stages when they ran."""
    commit: str | None = None
    """Of the code that its answers were asked by."""
    finished: str = ""
    machine: dict[str, Any] = Field(default_factory=dict)

    judged: tuple[Judged, ...] = Field(default=(), exclude=True)
    questions: tuple[Judged, ...] = Field(default=(), exclude=True)
    """Further short questions, asked apart from what is judged."""
    missing: str = Field(default="", exclude=True)
    """Why there is nothing."""
    logged: bool = Field(default=False, exclude=True)
    """Whether it was taken from another run's log, so that its words are not there."""

    @property
    def place(self) -> tuple[str, str, int, int]:
        """Where it stands in a sweep: defence, base, seed, budget."""
        return self.defence, self.base, self.seed, self.budget


@dataclass
class SweepRun:
    """All cells of a sweep, and what they cost."""

    cells: list[Cell] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    seconds: float = 0.0
    """Time of all stages when they ran, those kept from before included."""
    peak_gib: float = 0.0

    def add(self, cell: Cell) -> None:
        """One cell more, and what it cost."""
        self.cells.append(cell)
        self.seconds += cell.seconds


@dataclass(frozen=True)
class Trained:
    """Weights that a cell trained, or took from another."""

    adapter: Path
    tokens: int
    seconds: float
    thinks: bool
    seen: tuple[str, ...]


class CellStages:
    """The stages of one cell, each of which is kept: training, threshold, and all that the sweep asks of it."""

    def __init__(
        self, sweep: Sweep, setting: Setting, name: str, progress: Progress, budget: int = 0, after: str = ""
    ) -> None:
        """`after` is the key of the data that it rests on; that of its setting where it is empty."""
        self.sweep, self.setting, self.name, self.progress, self.budget = sweep, setting, name, progress, budget
        self.folder = setting.folder / (f"{name}-b{budget}" if budget else name)

        def say(line: str) -> None:
            progress.say(f"{slug(setting.base)} s{setting.seed} {self.folder.name} {line}")

        self.runner = StageRunner(self.folder, say, after=after or setting.key)

    def finished(self, stage: str = ATTACK) -> bool:
        """Whether a stage that asks the setting's requests was done before."""
        return self.runner.finished(self.setting.stage(stage))

    def cost(self) -> dict[str, Any]:
        """What made the cell, by the names of its fields: for whoever reads its figures beside those of other runs."""
        attack = self.runner.manifest(self.setting.stage(ATTACK))
        made = {"commit": attack.get("commit"), "finished": attack.get("finished", "")}
        return {"seconds": self.runner.seconds, "machine": machine()} | made

    # Training.

    def train(self, rows: Setting, entry: MethodEntry, shared: Trained | None) -> Trained:
        """Trains on the rows of a setting within the budget, and sets the threshold where there is a verdict.

        `shared` are weights that are this method's as well.
        """
        method, config = method_of(self.sweep, entry, rows.base, rows.seed)

        def work(out: Path) -> dict[str, Any]:
            counts = fit(out) if shared is None else _copied(shared.adapter, out, method)
            if entry.think_budget is not None:
                write_settings(out, read_settings(out).model_copy(update={"think_budget": entry.think_budget}))
            return counts

        def fit(out: Path) -> dict[str, Any]:
            given = rows.material(method.needs_complied, self.progress)
            a_pass, most = round(self.budget / entry.passes), max(entry.passes, self.sweep.most_passes)
            alone = method.procedure is None or method.one_run  # another procedure shares its budget out by itself
            job = Job(rows.base, method, given, config, out, a_pass, self.progress, f"train {method.name}")
            counts = train_method(replace(job, budget=(self.budget, most) if alone else None))
            return {"passes": config.epochs, **counts, "tokens": float(counts["tokens"])}

        beside = {"around", "why", "seeds", "threshold"}  # the rest changes the weights
        trained_by = entry.model_dump(mode="json", exclude=beside)
        said = {"method": trained_by, "budget": self.budget, "train": config.model_dump(mode="json")}
        folder = self.runner.run(TRAIN, said, work, keep_partial=True)
        settings = read_settings(folder)
        if settings.thinks:
            self._set_threshold(rows, entry, folder, shared)
        manifest = self.runner.manifest(TRAIN)
        return Trained(
            adapter=folder,
            tokens=round(manifest["counts"].get("tokens", 0)),
            seconds=float(manifest["seconds"]) + (shared.seconds if shared is not None else 0.0),
            thinks=settings.thinks,
            seen=settings.seen_operators,
        )

    def _set_threshold(self, rows: Setting, entry: MethodEntry, adapter: Path, shared: Trained | None) -> None:
        """The entry's own, or the operating point on development rows, which shared weights have thought about."""
        if entry.threshold is not None:
            self.runner.run(CALIBRATE, {"given": entry.threshold}, lambda out: {"threshold": entry.threshold})
            given = {"threshold": entry.threshold, "threshold_note": "given by hand"}
            write_settings(adapter, read_settings(adapter).model_copy(update=given))
            return
        point = self.sweep.operating_point.applied(fused=False)

        def work(out: Path) -> dict[str, Any]:
            chosen = None
            if shared is not None and read_settings(shared.adapter).think_budget == read_settings(adapter).think_budget:
                chosen = take_over(shared.adapter.with_name(CALIBRATE), out)
            if chosen is None:
                chosen = calibrate(LocalModel.load(rows.base, adapter), rows.dev, point, out, bar)
            return {"threshold": round(chosen.threshold, 3)}

        with self.progress.bar("calibrate") as bar:
            folder = self.runner.run(CALIBRATE, point.model_dump(mode="json"), work)
        set_threshold(adapter, read_calibration(folder))

    # What it is asked.

    def said_before(self) -> list[Judged]:
        """What its weights were heard to say since they were trained, under whatever operating point.

        To be read before the attack's stage runs again, since that starts from nothing.
        """
        attack = self.setting.stage(ATTACK)
        trained, attacked = self.runner.manifest(TRAIN), self.runner.manifest(attack)
        made, heard = trained.get("finished", ""), attacked.get("finished", "")
        same_length = attacked.get("config", {}).get(_TOKENS) == self.sweep.evaluate.max_answer_tokens
        if not made or heard <= made or not same_length:
            return []
        return list(read_jsonl(self.folder / attack / JUDGED, Judged))

    def ask(self, stage: str, attempts: Sequence[Attempt], opened: Callable[[], Respondent]) -> tuple[Judged, ...]:
        """Puts attempts to the defence and judges its answers; in their order. Opens it only where one is to be
        asked."""
        tokens = self.sweep.evaluate.max_answer_tokens
        config = {"attempts": key_of([(one.id, one.asked, one.cells) for one in attempts]), _TOKENS: tokens}
        with self.progress.bar(f"{stage} {self.name}") as bar:
            return tuple(ask_stage(stage, config, attempts, opened, self.runner, bar, self.name, tokens))

    def search(
        self, search: SearchConfig, opened: Callable[[], Respondent], read: Callable[[], LocalModel]
    ) -> tuple[Outcome, ...]:
        """An adaptive attack, one search a goal. Gradients are taken through the model of `read`: the trained one
        itself, or for a defence around the base model the base, so that its suffixes come from a model without that
        defence."""
        # The first harmful test requests of the plan, the same for every defence.
        direct = [one.request for one in self.setting.attempts if "direct" in one.cells]
        goals = [Goal(request, opening_of(request)) for request in direct[: search.goals]]
        tokens = self.sweep.evaluate.max_answer_tokens
        settings = SearchSettings(budget=search.budget, seed=self.setting.seed, max_answer_tokens=tokens)

        def work(out: Path) -> dict[str, Any]:
            attacked, reader = opened(), read()
            format_: Format = reader.thinking.format if reader.thinking is not None else "think"
            thinks = reader.thinking is not None
            tools = Tools(able=attacked.able, policy=self.setting.policy, format=format_, thinks=thinks, model=reader)

            def told(state: SearchProgress) -> None:
                bar.step(state.done, state.total, {})

            method, place = parse_method(search.method), out / "searches"
            run = run_searches([method], goals, Parties(attacked, default_judge()), place, tools, settings, told)
            broken = [one.broken for one in run.outcomes]
            return {"goals": len(broken), "broken": broken.count(True), "unscored": broken.count(None)}

        said = search.model_dump(mode="json", exclude={"defences"})
        if search.name == _GCG:  # as it stands in the file, by which finished stages are known
            said = self.sweep.evaluate.gcg.model_dump(mode="json", exclude={"defences"})
        config = {search.name: said, "goals": [one.request.id for one in goals]}
        with self.progress.bar(f"{search.name} {self.name}") as bar:
            folder = self.runner.run(self.setting.stage(search.name), config, work, keep_partial=True)
        return tuple(read_outcomes(folder / "searches"))

    def latency(self, opened: Callable[[], Respondent], base: Callable[[], Respondent]) -> tuple[float, ...]:
        """Times as long as the base model that it takes, for each of some ordinary requests, one at a time.

        Both are asked each request right after each other, the first of them in turn: a machine that slows down slows
        both. Raises StageError where one of them has no answer.
        """
        config = self.sweep.evaluate.latency
        assert config is not None
        tokens = config.max_answer_tokens
        asked = [one.conversation for one in self.setting.attempts if "ordinary" in one.cells][: config.requests]

        def work(out: Path) -> dict[str, Any]:
            bar.total(len(asked))
            both = (base(), opened())
            for one in both:
                _seconds(one, asked[0], tokens)  # the first call of all is slow
            ratios = []
            for place, conversation in enumerate(asked):
                order = (0, 1) if place % 2 else (1, 0)
                took = {which: _seconds(both[which], conversation, tokens) for which in order}
                ratios.append(took[1] / took[0])
                bar.advance(1)
            write_json(out / "ratios.json", ratios)
            return {"requests": len(ratios), "median": round(float(np.median(ratios)), 2)}

        with self.progress.bar(f"latency {self.name}") as bar:
            said = {"latency": config.model_dump(mode="json"), "asked": [one.model_dump(mode="json") for one in asked]}
            folder = self.runner.run(self.setting.stage(LATENCY), said, work)
        return tuple(json.loads((folder / "ratios.json").read_text(encoding="utf-8")))


def _copied(shared: Path, out: Path, method: TrainingMethod) -> dict[str, Any]:
    """Another method's weights, with this one's way of answering beside them."""
    for file in shared.iterdir():
        if file.is_file() and file.name != "manifest.json":
            shutil.copy2(file, out / file.name)
    settings = read_settings(out)
    write_settings(out, settings.model_copy(update={"method": method.name, "answer_with": method.answer_with}))
    counts: dict[str, Any] = json.loads((shared / "manifest.json").read_text(encoding="utf-8"))["counts"]
    return counts


def _seconds(model: Respondent, conversation: Conversation, max_tokens: int) -> float:
    start = time.perf_counter()
    (reply,) = model.reply([conversation], max_tokens)
    if isinstance(reply, Failed):
        raise StageError(f"latency of {model.name}", reply.cause, "Leave `latency` out of the sweep")
    return time.perf_counter() - start
