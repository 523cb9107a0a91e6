"""The stages that put every defence of a run to the same attempts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.defences.catalogue import check_spec
from forethought.engine.conversation import Response
from forethought.engine.local import LocalModel
from forethought.errors import ConfigError
from forethought.evals.plan import plan_attempts
from forethought.evals.respond import run_defence
from forethought.evals.suite.records import Attempt, Judged
from forethought.manifest import key_of
from forethought.pipeline.data_stages import DataFolders
from forethought.pipeline.fitting import FITS, FUSIONS, fusion_stage, probe_rows, probe_stage, put_around
from forethought.pipeline.operating import recall
from forethought.pipeline.recipe import Recipe
from forethought.pipeline.stage import StageRunner
from forethought.policy import Policy
from forethought.progress import Progress
from forethought.records import Example, Request, read_jsonl, write_jsonl

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
