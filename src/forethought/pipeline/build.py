"""Builds a training set: from sources to a folder that others can load: data, card, report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.cluster import Here, Workers, connect
from forethought.data.dedupe import OverlapReport
from forethought.data.export import BuildFacts, Exported, Kind, SourceFacts, card, export
from forethought.data.files import file_system
from forethought.disk import told_when_full
from forethought.errors import ConfigError, InputError
from forethought.manifest import file_hash, git_commit, now, this_command, versions, write_json, write_whole
from forethought.models.callspec import Usage
from forethought.models.machine import machine
from forethought.pipeline import BuildSettings
from forethought.pipeline.blocks import Block, cut
from forethought.pipeline.evolve import LOST, USAGE
from forethought.pipeline.recipe import RECIPE, Recipe, build_recipe, changed, load_recipe
from forethought.pipeline.requests import OVERLAPS, REMOVED, check_rules
from forethought.pipeline.rows import DROPPED, EXAMPLES, DataFolders, data_stages
from forethought.pipeline.stage import StageRunner
from forethought.policy import Policy, load_policy
from forethought.progress import Progress
from forethought.records import Example, Request, read_jsonl
from forethought.report.data_page import PLAIN, UNSTATED, DataSummary, summarise, write_data_page

_RECIPES = {".yaml", ".yml"}
_DATA, _BLOCKS = "train.parquet", "data"
"""The rows as `datasets` loads them: one file, or on a cluster a folder of one for each block."""
PARQUET_ROWS = 50_000
DATASET, CARD, MANIFEST, PAGE, CAUSES = "dataset", "README.md", "manifest.json", "report.html", "dropped.json"


@dataclass(frozen=True)
class BuiltSet:
    """A training set that was built."""

    folder: Path
    """What `datasets.load_dataset` reads: rows, card, report."""
    summary: DataSummary

    @property
    def examples(self) -> Path:
        """The rows, as `train` takes them."""
        return self.folder / EXAMPLES

    @property
    def page(self) -> Path:
        """The report."""
        return self.folder / PAGE


def build(
    sources: str | Path | Sequence[str | Path],
    settings: BuildSettings | None = None,
    *,
    out: Path | None = None,
    on: str | None = None,
    parquet: str | None = None,
    progress: Progress | None = None,
) -> BuiltSet:
    """Turns refusal datasets, in any of the formats read, or one recipe into verified safety reasoning to train on.

    `out` None is `runs/NAME`; the same call goes on where one was stopped. `on`: a Ray cluster, as `cluster.connect`
    takes it, which has to see `out`; the rows are the same. `parquet`: an address such as `s3://BUCKET/FOLDER`, where
    the Parquet files go as well. A teacher that is paid for is asked up to
    the limit of `progress`. Raises ForethoughtError when something can't be used.
    """
    one = isinstance(sources, str | Path)
    named = [str(sources)] if one else [str(source) for source in sources]  # type: ignore[union-attr]
    settings = settings or BuildSettings()
    if any(Path(source).suffix.lower() in _RECIPES for source in named):
        if len(named) > 1:
            raise ConfigError(named[1], "stands beside a recipe", "List every source in the recipe's data")
        recipe = load_recipe(Path(named[0]))
    else:
        recipe = build_recipe(named, _columns(settings), settings.limit)
    recipe = _changed(recipe, settings)
    with connect(on) as workers:
        folder = out or Path("runs") / recipe.name
        return BuiltSet(*build_dataset(recipe, folder, progress or Progress(), workers, parquet))


def _columns(said: BuildSettings) -> dict[str, str]:
    return ({"text": said.text_column} if said.text_column else {}) | said.columns


def _changed(recipe: Recipe, said: BuildSettings) -> Recipe:
    """The recipe with what the settings say, checked by its schema again."""
    teacher: dict[str, Any] = {"name": said.teacher, "base_url": said.base_url, "concurrency": said.concurrency}
    teacher |= {"price_in": said.price_in, "price_out": said.price_out}
    rows = None if said.variants is None else 1 + said.variants
    update = {
        "policy": said.policy,
        "model": said.model,
        "seed": said.seed,
        "data": {
            "harmless": [{"path": path, "limit": said.limit} for path in said.harmless] or None,
            "against": list(said.against) or None,
        },
        "build": {
            "teacher": teacher,
            "answers": said.answers or ("own" if said.model else None),
            "format": said.format,
            "detail": said.detail,
            "rows_per_harmful": rows,
            "rows_per_harmless": rows,
            "twins": said.twins,
            "operator_folder": said.operator_folder,
        },
    }
    return changed(recipe, update)


def build_dataset(
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    workers: Workers | None = None,
    parquet: str | None = None,
) -> tuple[Path, DataSummary]:
    """Runs the data stages of a recipe in `folder` and writes the set that comes of it.

    Returns its folder (`datasets.load_dataset` reads it) and what stands in it. The same
    recipe, sources and seed give the same bytes of data. Raises ForethoughtError when a
    stage can't do its work; finished stages stay.
    """
    workers, folder = workers or Here(), folder.absolute()  # workers have folders of their own
    policy = load_policy(recipe.policy)
    check_rules(recipe, policy, progress.say)
    write_whole(folder / RECIPE, recipe.text)
    stages = StageRunner(folder, progress.say)
    folders = data_stages(recipe, policy, stages, progress, workers=workers)
    out = folder / DATASET
    with told_when_full(folder), tempfile.TemporaryDirectory(dir=folder, prefix=f".{DATASET}-") as part:
        summary = _write_set(recipe, policy, stages, folders, Path(part), workers, parquet)
        out.mkdir(exist_ok=True)
        (out / _DATA).unlink(missing_ok=True)
        shutil.rmtree(out / _BLOCKS, ignore_errors=True)
        for file in sorted(Path(part).iterdir()):
            os.replace(file, out / file.name)
    return out, summary


def _write_set(
    recipe: Recipe,
    policy: Policy,
    stages: StageRunner,
    folders: DataFolders,
    out: Path,
    workers: Workers,
    parquet: str | None,
) -> DataSummary:
    """Writes the whole set into an empty folder: what it is to take the place of stays, should anything fail."""
    for name in (EXAMPLES, DROPPED, CAUSES):
        shutil.copyfile(folders.built / name, out / name)
    shutil.copyfile(folders.selected / OVERLAPS, out / OVERLAPS)
    here = isinstance(workers, Here)
    blocks = cut(folders.built / EXAMPLES, None if here else PARQUET_ROWS)
    names = [_DATA] if here else [f"{_BLOCKS}/train-{n:05}-of-{len(blocks):05}.parquet" for n in range(len(blocks))]
    workers.map(_export_block, list(zip(blocks, names, strict=True)), recipe, policy, out, parquet)
    summary = summarise(read_jsonl(folders.built / EXAMPLES, Example), _json(out / CAUSES), policy=policy)
    facts = _facts(recipe, policy, folders, summary, _DATA if here else f"{_BLOCKS}/*.parquet")
    (out / CARD).write_text(card(facts), encoding="utf-8")
    manifest = {
        "config": recipe.model_dump(mode="json"),
        "files": {
            str(file.relative_to(out)): file_hash(file)
            for file in sorted(out.rglob("*"))
            if file.suffix in {".jsonl", ".parquet"}
        },
        "facts": facts.model_dump(mode="json"),
        "seconds": round(stages.seconds, 1),
        "peak_gib": stages.peak_gib,
        "finished": now(),
    }
    write_json(out / MANIFEST, manifest)
    summary = summary.model_copy(update={"facts": manifest["facts"]})
    write_data_page(out / PAGE, summary)
    return summary


def _export_block(of: tuple[Block, str], recipe: Recipe, policy: Policy, out: Path, parquet: str | None) -> None:
    block, name = of
    rows, build = read_jsonl(block.file, Example, block.start, block.stop), recipe.build
    export(rows, policy, build.format, build.detail, recipe.seed, "parquet", out / name, include_partial=True)
    if parquet is not None:
        system, path = file_system(parquet)
        system.makedirs(path, exist_ok=True)
        system.put_file(str(out / name), f"{path}/{Path(name).name}")  # such stores show a file once it is whole


def read_summary(dataset: Path, policy: Policy | None, show_harmful: bool = False) -> DataSummary:
    """What stands in a built set: its rows, what was dropped, and what is known of it."""
    facts = _json(dataset / MANIFEST).get("facts", {})
    rows = read_jsonl(dataset / EXAMPLES, Example)
    return summarise(rows, _json(dataset / CAUSES), facts, policy, show_harmful)


def find_set(build: Path) -> tuple[Path, Recipe]:
    """(folder of the data, recipe that it was built by) in the folder of a build, or in that folder itself.

    Raises InputError where there is none.
    """
    folder = build / DATASET if (build / DATASET).is_dir() else build
    manifest = _json(folder / MANIFEST)
    if not manifest:
        raise InputError(build, "holds no built set", "Give the folder that `forethought build` wrote")
    if "config" not in manifest or "facts" not in manifest:
        raise InputError(build, "is a stage, not a built set", "Give the folder above it")
    return folder, Recipe.model_validate(manifest["config"])


def inspect_build(build: Path, show_harmful: bool = False) -> DataSummary:
    """What stands in a built set, or in the data of a run. Raises InputError where there is none."""
    stage = build / "4-build"
    if stage.is_dir() and not (build / DATASET).is_dir():  # of a run, which writes no set of its own
        return read_summary(stage, None, show_harmful)
    folder, recipe = find_set(build)
    return read_summary(folder, load_policy(recipe.policy), show_harmful)


def export_build(build: Path, kind: Kind, out: Path, include_partial: bool = False) -> Exported:
    """Writes a built set in the format of another trainer, as `data.export.export` does."""
    folder, recipe = find_set(build)
    rows, policy = read_jsonl(folder / EXAMPLES, Example), load_policy(recipe.policy)
    return export(rows, policy, recipe.build.format, recipe.build.detail, recipe.seed, kind, out, include_partial)


def _facts(recipe: Recipe, policy: Policy, folders: DataFolders, summary: DataSummary, data: str) -> BuildFacts:
    """What the card and the report say, gathered from the stages' files."""
    built, selected = (_json(folder / "manifest.json")["counts"] for folder in (folders.built, folders.selected))
    removed, dropped = _json(folders.selected / REMOVED), _json(folders.built / CAUSES)
    overlaps = OverlapReport.model_validate(_json(folders.selected / OVERLAPS))
    teachers = {"rules": "rules (no language model)", "own": "the dataset's own reasoning"}
    return BuildFacts(
        name=recipe.name, command=this_command(), file=data,
        policy_name=policy.name, policy_version=policy.version, policy_hash=policy.hash,
        teacher=teachers.get(recipe.build.teacher.name, recipe.build.teacher.name),
        usage=Usage.model_validate(_json(folders.evolved / USAGE)),
        rows=built["rows"], harmful_rows=built["refusal"], harmless_rows=built["benign"], verified=built["rows"],
        requests=selected["train"] + sum(removed.values()), removed=removed,
        taught=built["rows"] + sum(dropped.values()), dropped=dropped,
        evaluation=overlaps.evaluation, overlaps=overlaps.counts,
        format=recipe.build.format, detail=recipe.build.detail, seed=recipe.seed,
        commit=git_commit(), versions=versions(), machine=machine(),
        **_counted(recipe, summary), **_kept_meaning(folders),
    )  # fmt: skip


def _counted(recipe: Recipe, summary: DataSummary) -> dict[str, Any]:
    """What the built rows themselves say."""
    # The hash of a file that rows came from can be told where the recipe names the file itself.
    files = {Path(spec.path).name: Path(spec.path) for spec in recipe.data.sources if Path(spec.path).is_file()}
    told = {"" if one.label == UNSTATED else one.label: one for one in summary.sources}
    return {
        "sources": tuple(
            SourceFacts(
                path=name or "unknown", sha256=file_hash(files[name]) if name in files else "",
                harmful=one.harmful, harmless=one.harmless,
            )
            for name, one in sorted(told.items())
        ),
        "rules": {one.label.partition(" ")[0]: one.rows for one in summary.rules},  # without its title
        "operators": {one.label: one.rows for one in sorted(summary.operators, key=lambda one: one.label)
                      if one.label != PLAIN},
        "thought_only": summary.thought_only,
    }  # fmt: skip


def _kept_meaning(folders: DataFolders) -> dict[str, Any]:
    """What was lost in teaching, and the share of restyled requests that still ask the same."""
    lost = _json(folders.evolved / LOST)
    variants = sum(row.operator is not None for row in read_jsonl(folders.evolved / "train.jsonl", Request))
    checked = variants + sum(count for cause, count in lost.items() if cause.startswith("variant: "))
    return {"lost": lost, "intent_kept": variants / checked if checked else None, "intent_checked": checked}


def _json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return loaded
