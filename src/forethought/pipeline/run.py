"""`forethought run`: from data to a trained model and a report. A stage is kept when nothing before it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from forethought.attempts.plan import plan_attempts
from forethought.attempts.records import Attempt, Judged
from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.evaluation.capability import ability, ability_figures, question_sets
from forethought.evaluation.compare import QUESTIONS, Comparison, report_comparison
from forethought.manifest import file_hash, key_of, write_whole
from forethought.measure.traffic import load_traffic
from forethought.metrics import Figure
from forethought.model import NO_DEFENCE, Model, load, write_run_model
from forethought.models.conversation import Respondent, Response
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.models.weights import load_tokenizer
from forethought.pipeline.check import check_recipe
from forethought.pipeline.evolve import rows_besides
from forethought.pipeline.fitting import (
    FITS,
    Fitting,
    ask_stage,
    calibrate,
    development_rows,
    probe_rows,
    put_around,
    read_calibration,
    recall,
    set_threshold,
    with_demand,
)
from forethought.pipeline.recipe import RECIPE, Recipe, default_recipe, load_recipe
from forethought.pipeline.requests import what_was_removed
from forethought.pipeline.rows import DataFolders, data_stages, fingerprint
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.training import taught_by
from forethought.policy import load_policy
from forethought.progress import Progress
from forethought.records import Example, Request, read_jsonl
from forethought.report.figures import BASE, OURS
from forethought.training.methods.base import Job, Material
from forethought.training.run import train_method

DEFENCES = ("base", "prompt", "scot")
BEST = "scot_best"
"""The trained model with what the recipe puts around it."""
_TRAIN, _CALIBRATE, _PROBE, _FUSION = "5-train", "6-calibrate", "8-probe", "8-fuse"
_DEMAND = "8-demand"


def run(
    what: str | Path,
    *,
    out: Path | None = None,
    text_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    model: str | None = None,
    policy: Path | None = None,
    harmless: Sequence[str] = (),
    results: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """From data to a trained model and a report: a recipe (.yaml), or the default one on a refusal dataset.

    `text_column` and `columns` name a dataset's columns by noun where the guess is wrong. `model` and `policy` stand
    in place of the recipe's, `harmless` datasets are added to its own. `out` None is
    `runs/NAME`; the same call goes on where one was stopped. Raises ForethoughtError when something can't be used.
    """
    if Path(what).suffix.lower() in (".yaml", ".yml"):
        if text_column or columns:
            raise ConfigError("columns", "belong to a dataset, not to a recipe", "Set them in the recipe's data")
        recipe = load_recipe(Path(what))
    else:
        recipe = default_recipe(str(what), ({"text": text_column} if text_column else {}) | dict(columns or {}))
    update: dict[str, Any] = {
        name: value for name, value in (("model", model), ("policy", policy)) if value is not None
    }
    if harmless:
        added = (*recipe.data.harmless, *(SourceSpec(path=path) for path in harmless))
        update["data"] = recipe.data.model_copy(update={"harmless": added})
    recipe = recipe.model_copy(update=update)
    folder = out or Path("runs") / recipe.name
    return _Run(recipe, folder, progress or Progress()).report(results)


class _Run:
    """A recipe that is run in a folder. What is found by one stage stands here for the next."""

    def __init__(self, recipe: Recipe, folder: Path, progress: Progress) -> None:
        """Raises ConfigError as `check_recipe` does."""
        self.recipe, self.folder, self.progress = recipe, folder, progress
        self.policy = load_policy(recipe.policy)
        check_recipe(recipe, self.policy, progress.say)
        self.stages = StageRunner(folder, progress.say, last=f"9-respond-{BEST}" if recipe.around else "7-respond-scot")
        self.judged: dict[str, list[Judged]] = {}
        """By defence, the attempts that it was put to."""
        self._trained = cache(self._load_trained)
        """The trained model, loaded once, and only where something has to be fitted or asked."""
        self.defence = ""
        """What it puts around the trained model, with the folders of all that was fitted."""

    def report(self, results: Path | None) -> Comparison:
        """Runs all stages, and writes the results, to `results` as well, and the page.

        Raises ForethoughtError when a stage can't do its work; finished stages stay.
        """
        recipe, attacks = self.recipe, self.recipe.evaluate.attacks
        write_whole(self.folder / RECIPE, recipe.text)
        data = data_stages(recipe, self.policy, self.stages, self.progress)
        adapter = self._train(data)
        self._calibrate(data, adapter)
        attempts = self._attempts(data)
        for name in DEFENCES:
            if name != "prompt" or recipe.evaluate.safety_prompt:
                self._respond(name, adapter, attempts)
        if recipe.around:
            self._respond_best(data, adapter, attempts)
        settings = read_settings(adapter)
        write_run_model(self.folder, recipe.model, adapter, self.defence)
        inputs = {name: file_hash(data.selected / name) for name in ("train.jsonl", "dev.jsonl", "test.jsonl")}
        found = report_comparison(
            self.judged, attacks, settings.seen_operators, settings, base=BASE, ours=OURS, folder=self.folder,
            title=recipe.name, results=self.folder / "results.json", seed=recipe.seed,
            inputs=inputs | {"policy": self.policy.hash}, further=[*self._ability(), *self._costs(data)],
            lineage=self._lineage(data), contamination=what_was_removed(data.selected),
            traffic=load_traffic(self.folder / _FUSION if recipe.around else adapter), progress=self.progress,
        )  # fmt: skip
        if results is not None:
            write_whole(results, found.results.read_text(encoding="utf-8"))
        return found

    def _train(self, data: DataFolders) -> Path:
        recipe = self.recipe
        method, config = taught_by(recipe)

        def work(out: Path) -> dict[str, Any]:
            build = recipe.build
            examples = list(read_jsonl(data.built / "examples.jsonl", Example))
            tokenizer = load_tokenizer(recipe.model)
            material = Material(examples, tokenizer, self.policy, build.format, build.detail, recipe.seed)
            title = self.stages.title(_TRAIN)
            return train_method(Job(recipe.model, method, material, config, out, None, self.progress, title))

        said = {"train": config.model_dump(mode="json"), "answer_with": recipe.answer_with}
        said |= recipe.model_dump(mode="json", include={"method", "procedure"})
        return self.stages.run(_TRAIN, said, work, keep_partial=True)

    def _calibrate(self, data: DataFolders, adapter: Path) -> None:
        """Sets the threshold beside the adapter, from development rows."""
        point = self.recipe.operating_point.applied(fused=False)

        def work(out: Path) -> dict[str, Any]:
            dev = list(read_jsonl(data.evolved / "dev.jsonl", Request))
            chosen = calibrate(LocalModel.load(self.recipe.model, adapter), dev, point, out, bar)
            return {"threshold": round(chosen.threshold, 3), "note": str(chosen)}

        with self.progress.bar(self.stages.title(_CALIBRATE)) as bar:
            folder = self.stages.run(_CALIBRATE, point.model_dump(mode="json"), work)
        set_threshold(adapter, read_calibration(folder))

    def _attempts(self, data: DataFolders) -> list[Attempt]:
        plan, test = self.recipe.evaluate, list(read_jsonl(data.selected / "test.jsonl", Request))
        return plan_attempts(
            test, plan.attacks, plan.n_direct, plan.n_styled, plan.n_ordinary, plan.n_lookalike, self.recipe.seed,
            self.recipe.data.held_out_rules, n_styled_lookalike=plan.n_styled_lookalike,
        )  # fmt: skip

    def _respond(self, name: str, adapter: Path, attempts: Sequence[Attempt]) -> None:
        """One of `DEFENCES` against the plan."""
        plan = self.recipe.evaluate

        def opened() -> Respondent:
            return self._trained(adapter) if name == "scot" else LocalModel.load(self.recipe.model)

        self._judge(f"7-respond-{name}", name, opened, attempts, {}, plan.safety_prompt if name == "prompt" else None)

    def _respond_best(self, data: DataFolders, adapter: Path, attempts: Sequence[Attempt]) -> None:
        """Fits what the recipe puts around the trained model, and puts both together to the same attempts.

        What base and trained model said by themselves is not asked again.
        """
        recipe, tokens = self.recipe, self.recipe.evaluate.max_answer_tokens

        @cache
        def model() -> LocalModel:
            opened = self._trained(adapter)
            reuse_replies(opened, self.judged["scot"], tokens)
            recall(opened, self.folder / _CALIBRATE)
            return opened

        fit, point = FITS[recipe.fusion], recipe.operating_point
        train, dev = (list(read_jsonl(data.evolved / f"{split}.jsonl", Request)) for split in ("train", "dev"))
        rows = probe_rows(fit, train, read_jsonl(data.built / "examples.jsonl", Example))
        if recipe.fit_on:
            self.stages.depend_on({"fit_on": {spec.path: fingerprint(spec.path) for spec in recipe.fit_on}})
            rows += rows_besides(recipe, self.policy, data.selected)
        fitting = Fitting(model, train, dev, self.policy, point, self.stages, self.progress)
        probe = fitting.probe(_PROBE, rows, fit.trained)
        known = development_rows(dev, point)  # calibration thought about them already
        fusion = fitting.fusion(_FUSION, fit, lambda: probe, known)
        self.defence = with_demand(recipe.defence(fusion), lambda: fitting.demand(_DEMAND, fit, lambda: probe, known))
        # The fusion is known by its own stage.
        further = {} if recipe.around == recipe.fusion else {"around": recipe.around}
        self._judge(
            f"9-respond-{BEST}", BEST, lambda: put_around(self.defence, model(), model(), dev, self.policy),
            attempts, further,
        )  # fmt: skip

    def _load_trained(self, adapter: Path) -> LocalModel:
        """It knows what the base said."""
        model = LocalModel.load(self.recipe.model, adapter)
        reuse_base(model, self.judged["base"], self.recipe.evaluate.max_answer_tokens)
        return model

    def _judge(
        self,
        stage: str,
        name: str,
        opened: Callable[[], Respondent],
        attempts: Sequence[Attempt],
        further: dict[str, Any],
        system: str | None = None,
    ) -> None:
        """Puts a defence to the attempts; its judged answers depend on the plan, and on what `further` holds."""
        plan = self.recipe.evaluate
        said = plan.model_dump(mode="json", exclude={"questions", "n_questions"})
        asked = {"evaluate": said, "attempts": key_of([one.id for one in attempts])} | further
        with self.progress.bar(self.stages.title(stage)) as bar:
            self.judged[name] = ask_stage(
                stage, asked, attempts, opened, self.stages, bar, name, plan.max_answer_tokens, system
            )

    def _ability(self) -> list[Figure]:
        """What base and trained model make of the recipe's questions, as its users would open them."""
        plan, folder = self.recipe.evaluate, self.folder
        if not plan.questions:
            return []
        sets = question_sets(plan.questions, None, self.progress)
        opened: dict[str, Callable[[], Model]] = {
            "base": lambda: load(self.recipe.model),
            "scot": lambda: load(folder, defence=NO_DEFENCE),
        }
        if self.recipe.around:
            opened[BEST] = lambda: load(folder)
        found = {
            name: ability(model(), name, sets, plan.n_questions, folder / QUESTIONS, self.progress)
            for name, model in opened.items()
        }
        return ability_figures(sets, found, plan.n_questions, BASE)

    def _lineage(self, data: DataFolders) -> list[tuple[str, str]]:
        """What the page says of how the model was made."""
        method, config = taught_by(self.recipe)
        passes = f"passes over its rows: {config.epochs:g}"
        return [
            ("Model", f"{self.recipe.model}, trained by {method.name}, {passes}"),
            ("Data", self._sources(data)),
            ("Recipe", f"{RECIPE}, beside this page"),
        ]

    def _sources(self, data: DataFolders) -> str:
        """What the rows were made of, and how many."""
        held, counts = self.recipe.data, self.stages.manifest(data.built.name)["counts"]
        harmful, harmless = (", ".join(Path(one.path).name for one in side) for side in (held.harmful, held.harmless))
        return (
            f"{counts['refusal']} harmful rows from {harmful}; {counts['benign']} harmless rows from {harmless};"
            f" {self.stages.manifest(data.selected.name)['counts']['test']} requests kept apart for the test"
        )

    def _costs(self, data: DataFolders) -> list[Figure]:
        """What the run took."""
        tokens = self.stages.manifest(data.built.name)["counts"]["tokens"]
        return [
            Figure(name="train_tokens", value=float(tokens) * self.recipe.training.epochs, unit="tokens"),
            Figure(name="train_minutes", value=self.stages.manifest(_TRAIN)["seconds"] / 60, unit="minutes"),
            Figure(name="minutes", value=self.stages.seconds / 60, unit="minutes"),
            Figure(name="peak_gib", value=self.stages.peak_gib, unit="GiB"),
        ]


def reuse_base(model: LocalModel, base: Sequence[Judged], max_tokens: int) -> None:
    """What the base weights answered to a prompt is what they answer after `comply`: the prompt is the same."""
    for one in base:
        if one.response is not None and not one.attempt.prefill:
            model.known_answers[(model.prompt_text(one.attempt.request.messages), max_tokens)] = one.response


def reuse_replies(model: LocalModel, same: Sequence[Judged], max_tokens: int) -> None:
    """What the same weights said under the same settings is what they say again.

    Their threshold may have been another: what the model's own threshold decides otherwise is asked anew.
    """
    for one in same:
        if one.response is not None and _decides_alike(one.response, model):
            model.known_replies[(one.attempt.conversation, max_tokens)] = one.response


def _decides_alike(said: Response, model: LocalModel) -> bool:
    if model.thinking is None:
        return True
    if said.log_odds is None:
        return False
    return said.decision == ("refuse" if said.log_odds >= model.thinking.threshold else "comply")
