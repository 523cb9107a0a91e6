"""The stages that put every defence of a run to the same attempts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.attacks.catalogue import BY_RULE
from forethought.attempts.draw import plan_attempts
from forethought.attempts.judged import run_defence
from forethought.attempts.records import Attempt, Judged
from forethought.data.sources import SourceSpec
from forethought.defences.catalogue import check_spec
from forethought.errors import ConfigError
from forethought.manifest import file_hash, key_of
from forethought.measure.comprehension import readability_warnings
from forethought.measure.curves import UNSCORED_LIMIT, too_many_unscored
from forethought.metrics import Figure
from forethought.model import write_run_model
from forethought.models.conversation import Response
from forethought.models.local import LocalModel
from forethought.models.settings import Settings, read_settings
from forethought.models.weights import load_tokenizer
from forethought.pipeline.fitting import (
    FITS,
    FUSIONS,
    calibrate,
    fusion_stage,
    probe_rows,
    probe_stage,
    put_around,
    read_calibration,
    recall,
    set_threshold,
)
from forethought.pipeline.recipe import Recipe, default_recipe, load_recipe
from forethought.pipeline.rows import DataFolders, data_stages
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.training import taught_by
from forethought.policy import Policy, load_policy
from forethought.progress import Progress
from forethought.records import Example, Request, read_jsonl, write_jsonl
from forethought.report.compare_page import write_compare_page
from forethought.report.figures import attack_sets, defence_figures, measured_comprehension, paired_figures
from forethought.report.results import write_results
from forethought.training.methods.base import Job, Material
from forethought.training.run import train_method

DEFENCES = ("base", "prompt", "scot")
CALIBRATE = "6-calibrate"
"""The stage that thinks about development rows."""
BEST, FUSION = "scot_best", "8-fuse"
"""The trained model with what the recipe puts around it, and the stage that holds that."""


def check_around(around: str) -> None:
    """Raises ConfigError for what a run can't put around its model: told before the first stage."""
    first = around.partition("|")[0].strip()
    if first not in FUSIONS:
        raise ConfigError(f"around: {first}", "is no fusion that a run fits", f"Begin with {', '.join(FUSIONS)}")
    check_spec(around, FUSIONS)


def respond_stages(
    recipe: Recipe, selected: Path, adapter: Path, stages: StageRunner, progress: Progress
) -> dict[str, list[Judged]]:
    """Every defence against the same plan; judged attempts by defence."""
    plan, attempts = recipe.evaluate, _attempts(recipe, selected)
    judged: dict[str, list[Judged]] = {}
    for name in DEFENCES:

        def work(out: Path, name: str = name) -> dict[str, Any]:
            bar.total(len(attempts))
            local = LocalModel.load(recipe.model, adapter if name == "scot" else None)
            if name == "scot":
                reuse_base(local, judged["base"], plan.max_answer_tokens)
            system = plan.safety_prompt if name == "prompt" else None
            rows = run_defence(name, local, attempts, out / "logs", system, plan.max_answer_tokens, bar.advance)
            write_jsonl(out / "judged.jsonl", rows)
            return {"attempts": len(rows), "unscored": sum(row.refused is None for row in rows)}

        with progress.bar(f"7-respond-{name}") as bar:
            folder = stages.run(f"7-respond-{name}", _asked(recipe, attempts), work, keep_partial=True)
        judged[name] = list(read_jsonl(folder / "judged.jsonl", Judged))
    return judged


def _attempts(recipe: Recipe, selected: Path) -> list[Attempt]:
    plan = recipe.evaluate
    test = list(read_jsonl(selected / "test.jsonl", Request))
    return plan_attempts(
        test, plan.attacks, plan.n_direct, plan.n_styled, plan.n_ordinary, plan.n_lookalike, recipe.seed,
        recipe.data.held_out_rules,
    )  # fmt: skip


def _asked(recipe: Recipe, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """What the answers of a stage depend on, besides the model."""
    return {"evaluate": recipe.evaluate.model_dump(mode="json"), "attempts": key_of([a.id for a in attempts])}


def best_stages(
    recipe: Recipe, policy: Policy, folders: DataFolders, adapter: Path, before: Mapping[str, Sequence[Judged]],
    stages: StageRunner, progress: Progress,
) -> list[Judged]:  # fmt: skip
    """Fits what the recipe puts around the trained model, and puts both together to the same attempts.

    `before` holds what `respond_stages` found: what base and trained model said by themselves is not asked again.
    """
    held: list[LocalModel] = []  # loaded once, and only where something has to be fitted or asked

    def model() -> LocalModel:
        if not held:
            held.append(LocalModel.load(recipe.model, adapter))
            reuse_base(held[0], before["base"], recipe.evaluate.max_answer_tokens)
            reuse_replies(held[0], before["scot"], recipe.evaluate.max_answer_tokens)
            recall(held[0], stages.folder / CALIBRATE)
        return held[0]

    fit = FITS[recipe.fusion]
    train = list(read_jsonl(folders.evolved / "train.jsonl", Request))
    dev = list(read_jsonl(folders.evolved / "dev.jsonl", Request))
    rows = probe_rows(fit, train, read_jsonl(folders.built / "examples.jsonl", Example))
    probe = probe_stage("8-probe", model, rows, dev, policy, stages, progress, fit.trained)
    point = recipe.operating_point
    fusion = fusion_stage(FUSION, fit, lambda: probe, model, dev, point, stages, progress)
    attempts = _attempts(recipe, folders.selected)

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(attempts))
        defended = put_around(recipe.defence(fusion), model(), model(), dev, policy)
        tokens = recipe.evaluate.max_answer_tokens
        found = run_defence(BEST, defended, attempts, out / "logs", None, tokens, bar.advance)
        write_jsonl(out / "judged.jsonl", found)
        return {"attempts": len(found), "unscored": sum(row.refused is None for row in found)}

    with progress.bar(f"9-respond-{BEST}") as bar:
        # The fusion is known by its own stage.
        further = {} if recipe.around == recipe.fusion else {"around": recipe.around}
        folder = stages.run(f"9-respond-{BEST}", _asked(recipe, attempts) | further, work, keep_partial=True)
    return list(read_jsonl(folder / "judged.jsonl", Judged))


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


# `forethought run`: from data to a report, stage by stage, each kept when nothing before it changed.


@dataclass(frozen=True)
class RunReport:
    """What a run found. `forethought.load(folder)` is the model that it made, behind its best defence."""

    folder: Path
    page: Path
    figures: list[Figure]
    systems: tuple[str, ...]
    """Names of the defences compared, the undefended model first."""
    unscored: float
    """Largest share of answers of one defence that could not be judged."""

    @property
    def too_many_unscored(self) -> bool:
        """Whether so many are unscored that the figures should not be relied on."""
        return self.unscored > UNSCORED_LIMIT


def run(
    what: str | Path,
    *,
    out: Path | None = None,
    text_column: str | None = None,
    model: str | None = None,
    policy: Path | None = None,
    harmless: Sequence[str] = (),
    results: Path | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """From data to a trained model and a report: a recipe (.yaml), or the default one on a refusal dataset.

    `model` and `policy` stand in place of the recipe's, `harmless` datasets are added to its own. `out` None is
    `runs/NAME`; the same call goes on where one was stopped. Raises ForethoughtError when something can't be used.
    """
    if Path(what).suffix.lower() in (".yaml", ".yml"):
        if text_column:
            raise ConfigError(
                "text_column", "belongs to a dataset, not to a recipe", "Set columns in the recipe's data"
            )
        recipe = load_recipe(Path(what))
    else:
        recipe = default_recipe(str(what), text_column)
    update: dict[str, Any] = {
        name: value for name, value in (("model", model), ("policy", policy)) if value is not None
    }
    if harmless:
        added = (*recipe.data.harmless, *(SourceSpec(path=path) for path in harmless))
        update["data"] = recipe.data.model_copy(update={"harmless": added})
    recipe = recipe.model_copy(update=update)
    folder = out or Path("runs") / recipe.name
    return run_recipe(recipe, folder, results or folder / "results.json", progress or Progress())


def run_recipe(recipe: Recipe, folder: Path, results: Path, progress: Progress) -> RunReport:
    """Runs all stages of a recipe in `folder` and writes `results`.

    Raises ForethoughtError when a stage can't do its work; finished stages stay.
    """
    for attack in recipe.evaluate.attacks:
        if attack not in BY_RULE:
            raise ConfigError(f"attack '{attack}'", "there is no such attack", f"Use one of {', '.join(BY_RULE)}")
    if recipe.around:
        check_around(recipe.around)
    policy = load_policy(recipe.policy)
    stages = StageRunner(folder, progress.say)
    folders = data_stages(recipe, policy, stages, progress)
    evolved, selected, built = folders.evolved, folders.selected, folders.built
    adapter = _train_stage(recipe, policy, built, stages, progress)
    _calibrate_stage(recipe, evolved, adapter, stages, progress)
    judged = respond_stages(recipe, selected, adapter, stages, progress)
    if recipe.around:
        judged[BEST] = best_stages(recipe, policy, folders, adapter, judged, stages, progress)
    figures = _figures(recipe, judged, read_settings(adapter), built, stages)
    _say_doubts(recipe, judged, progress)
    defence = recipe.defence(folder / FUSION) if recipe.around else ""
    write_run_model(folder, recipe.model, adapter, defence)
    inputs = {name: file_hash(selected / name) for name in ("train.jsonl", "dev.jsonl", "test.jsonl")}
    inputs["policy"] = policy.hash
    write_results(results, [recipe.seed], inputs, figures)
    page = folder / "report.html"
    write_compare_page(page, recipe.name, recipe.evaluate.attacks, judged, figures, read_settings(adapter))
    unscored = max(sum(row.refused is None for row in rows) / max(1, len(rows)) for rows in judged.values())
    return RunReport(folder, page, figures, tuple(judged), unscored)


def _train_stage(recipe: Recipe, policy: Policy, built: Path, stages: StageRunner, progress: Progress) -> Path:
    method, config = taught_by(recipe)
    if not method.thinks or method.needs_complied:
        reason = "gives no verdict" if not method.thinks else "needs the base model's answers to harmful requests"
        raise ConfigError(f"method: {method.name}", f"{reason}, which a run can't use", "Put it in a sweep")

    def work(out: Path) -> dict[str, Any]:
        build = recipe.build
        examples = list(read_jsonl(built / "examples.jsonl", Example))
        tokenizer = load_tokenizer(recipe.model)
        material = Material(examples, tokenizer, policy, build.format, build.detail, recipe.seed)
        return train_method(Job(recipe.model, method, material, config, out, None, bar.step, progress.say))

    with progress.bar("5-train") as bar:
        said = {"train": config.model_dump(mode="json"), "answer_with": recipe.answer_with}
        said |= recipe.model_dump(mode="json", include={"method", "procedure"})
        return stages.run("5-train", said, work, keep_partial=True)


def _calibrate_stage(recipe: Recipe, evolved: Path, adapter: Path, stages: StageRunner, progress: Progress) -> None:
    """Sets the threshold beside the adapter, from development rows."""
    point = recipe.operating_point

    def work(out: Path) -> dict[str, Any]:
        dev = list(read_jsonl(evolved / "dev.jsonl", Request))
        chosen = calibrate(LocalModel.load(recipe.model, adapter), dev, point, out, bar)
        return {"threshold": round(chosen.threshold, 3), "note": str(chosen)}

    with progress.bar(CALIBRATE) as bar:
        folder = stages.run(CALIBRATE, point.model_dump(mode="json"), work)
    set_threshold(adapter, read_calibration(folder))


def _say_doubts(recipe: Recipe, judged: dict[str, list[Judged]], progress: Progress) -> None:
    """What a reader should know before the table: attacks marked wrongly as readable, cells with too many unscored."""
    for line in readability_warnings(measured_comprehension(judged["base"], recipe.evaluate.attacks)):
        progress.say(f"[yellow]{line}[/yellow]")
    for name, rows in judged.items():
        for cell, share in too_many_unscored(rows).items():
            progress.say(f"[red]{name}, {cell}: {share:.0%} of the answers could not be judged[/red]")


def _figures(
    recipe: Recipe, judged: dict[str, list[Judged]], settings: Settings, built: Path, stages: StageRunner
) -> list[Figure]:
    unseen, _ = attack_sets(recipe.evaluate.attacks, settings.seen_operators)
    figures = [
        figure for name in judged for figure in defence_figures(name, judged[name], recipe.evaluate.attacks, unseen)
    ]
    tokens = json.loads((built / "manifest.json").read_text(encoding="utf-8"))["counts"]["tokens"]
    return [
        *figures,
        *paired_figures(judged, unseen),
        Figure(name="train_tokens", value=float(tokens) * recipe.training.epochs, unit="tokens"),
        Figure(name="minutes", value=stages.seconds / 60, unit="minutes"),
        Figure(name="peak_gib", value=stages.peak_gib, unit="GiB"),
    ]
