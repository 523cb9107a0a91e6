"""The stages from sources to verified rows, which `run` and `build` share."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec
from forethought.manifest import file_hash, key_of
from forethought.pipeline.prepare import select
from forethought.pipeline.recipe import Recipe
from forethought.pipeline.rows import answer_rows, build_rows
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.teaching import Teaching
from forethought.pipeline.variants import evolve_rows
from forethought.policy import Policy
from forethought.progress import Progress

JOURNAL = "teacher.jsonl"
"""Every answer of a teacher that is a model; beside the stages, so that no change of settings pays twice."""
_ANSWERS, _BUILD = "3-answers", "4-build"
_NOT_PART_OF_A_ROW: dict[str, set[str]] = {
    "teacher": {"base_url", "concurrency", "timeout_s", "price_in", "price_out"}
}  # fmt: skip
"""Settings that change how long a build takes or what it costs, and no row of it."""


@dataclass(frozen=True)
class DataFolders:
    """Where each data stage wrote."""

    selected: Path
    evolved: Path
    answered: Path
    built: Path


def data_stages(
    recipe: Recipe,
    policy: Policy,
    stages: StageRunner,
    progress: Progress,
    own_answers: Path | None = None,
    rows: bool = True,
) -> DataFolders:
    """Runs the data stages of a recipe. `progress` agrees to the teacher's estimated cost before the first call.

    `own_answers`: a file of the model's own answers that several runs share; None keeps them with the stage. Without
    `rows` no model is asked for answers: what was not built yet is passed over, and its folders don't exist.
    """
    data, build = recipe.data, recipe.build
    sources = {spec.path: fingerprint(spec.path) for spec in all_sources(recipe)}
    against = {path: fingerprint(path) for path in data.against}
    config: dict[str, Any] = {"data": data.model_dump(mode="json"), "policy": policy.hash}
    config |= {"sources": sources, "against": against}
    config |= {"classify": not build.teacher.is_model}
    selected = stages.run(
        "1-select", config, lambda out: select(data, policy, out, progress.mapping, not build.teacher.is_model)
    )
    folder = build.operator_folder
    styles = {"own": [file_hash(file) for file in sorted(folder.glob("*.yaml"))]} if folder else {}
    settings = build.model_dump(mode="json", exclude=_NOT_PART_OF_A_ROW)
    config = {"build": settings, "seed": str(recipe.seed), "styles": styles}
    with progress.bar("2-evolve") as bar:
        teaching = Teaching(journal=stages.folder / JOURNAL, progress=progress, on_progress=bar.calls)
        evolved = stages.run("2-evolve", config, lambda out: evolve_rows(recipe, policy, selected, out, teaching))
    answerer = {"model": recipe.model if build.answers == "own" else None}
    if not rows and not stages.finished(_BUILD):
        return DataFolders(selected, evolved, stages.pass_over(_ANSWERS, answerer), stages.pass_over(_BUILD, {}))
    with progress.bar(_ANSWERS) as bar:
        answered = stages.run(
            _ANSWERS,
            answerer,
            lambda out: answer_rows(recipe, evolved, out, bar.total, bar.advance, own_answers),
            keep_partial=True,
        )
    built = stages.run(_BUILD, {}, lambda out: build_rows(recipe, policy, evolved, answered, out))
    return DataFolders(selected, evolved, answered, built)


def all_sources(recipe: Recipe) -> Sequence[SourceSpec]:
    """Every source that a recipe reads."""
    data = recipe.data
    return [*data.harmful, *data.harmless, *data.test_harmful, *data.test_harmless]


def fingerprint(spec: str) -> str:
    """What a source's content is known by, so that a changed file makes its stage run again.

    A hub set is known by its name alone.
    """
    if spec.startswith("shipped:"):
        return key_of([request.id for request in shipped_requests(spec.removeprefix("shipped:"))])
    package, _, inner = spec.removeprefix("pkg:").partition("/")
    if spec.startswith("pkg:"):
        found = importlib.util.find_spec(package)
        roots = list(found.submodule_search_locations or ()) if found else []
        return key_of([file_hash(Path(root) / inner) for root in roots if (Path(root) / inner).is_file()])
    path = Path(spec.partition("::")[0].removeprefix("disk:").partition("@")[0]).expanduser()
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else path.parent.glob(path.name or "*")
    return key_of([file_hash(file) for file in sorted(files) if file.is_file()])
