"""`forethought data inspect`, `export`, `push`, `mine` and `operators`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import quiet
from forethought.commands.terminal import console
from forethought.errors import ConfigError, InputError


def inspect(build: Path, page: Path | None, show: bool) -> None:
    """Shows a built set in the terminal, and as a page where one is asked for."""
    from forethought.commands.inspect import summary_view
    from forethought.pipeline.build import DATASET, read_summary
    from forethought.report.data_page import write_data_page

    stage = build / "4-build"
    if stage.is_dir() and not (build / DATASET).is_dir():  # of `forethought run`, which writes no set of its own
        folder, policy = stage, None
    else:
        folder, (policy, _) = _dataset(build)
    summary = read_summary(folder, policy, show)
    console.print(summary_view(summary))
    if page is not None:
        write_data_page(page, summary)
        console.print(f"Page: {page}", highlight=False, soft_wrap=True)


def operators(folder: Path | None) -> None:
    """Lists the operators."""
    from forethought.data.evolve import load_operators, operator_table

    table = Table("name", "kind", "", "languages", "shown", "an example", box=None, pad_edge=False)
    for row in operator_table(load_operators(folder)):
        table.add_row(*map(escape, row))
    console.print(table)


def export(build: Path, kind: str, out: Path, partial: bool) -> None:
    """Writes a built set in another format."""
    from forethought.data.export import Kind
    from forethought.data.export import export as write
    from forethought.pipeline.rows import EXAMPLES
    from forethought.records import Example, read_jsonl

    known = get_args(Kind)
    if kind not in known:
        raise ConfigError(f"--format {kind}", "is not a format that is written", f"Use one of {', '.join(known)}")
    folder, (policy, recipe) = _dataset(build)
    rows = read_jsonl(folder / EXAMPLES, Example)
    build_as = recipe.build
    made = write(rows, policy, build_as.format, build_as.detail, recipe.seed, cast(Kind, kind), out, partial)
    console.print(f"{made.rows} rows, {made.harmful} of them harmful: {out}", highlight=False, soft_wrap=True)
    for cause, count in made.left_out.items():
        console.print(f"[dim]left out: {count} rows {cause}[/dim]", highlight=False)


def push(build: Path, name: str, public: bool) -> None:
    """Uploads a built set."""
    from forethought.data.export import push as upload

    folder, _ = _dataset(build)
    console.print(upload(folder, name, private=not public), highlight=False, soft_wrap=True)


def mine(model: str, source: str, out: Path, limit: int | None) -> None:
    """Collects harmless requests that a model refuses."""
    quiet()
    from forethought.commands.terminal import Terminal
    from forethought.data.answers import false_refusals
    from forethought.data.sources import SourceSpec, load_requests
    from forethought.model import load_local
    from forethought.records import write_jsonl

    requests = list(load_requests(SourceSpec(path=source, limit=limit), False))
    if not any(request.harmful is False for request in requests):
        raise InputError(source, "holds no harmless request", "Mine from a set of harmless requests")
    with Terminal(console).bar("mine") as bar:
        bar.total(sum(request.harmful is False for request in requests))
        found, counts = false_refusals(load_local(model), requests, out.with_suffix(".log.jsonl"), bar.advance)
    write_jsonl(out, found)
    console.print(", ".join(f"{name} {count}" for name, count in counts.items()), highlight=False)
    console.print(f"{len(found)} false refusals: {out}", highlight=False, soft_wrap=True)


def _dataset(build: Path) -> tuple[Path, tuple[Any, Any]]:
    """(folder of the data, (policy, recipe) that it was built with)."""
    import json

    from forethought.pipeline.build import DATASET, MANIFEST
    from forethought.pipeline.recipe import Recipe
    from forethought.policy import load_policy

    folder = build / DATASET if (build / DATASET).is_dir() else build
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise InputError(build, "holds no built set", "Give the folder that `forethought build` wrote")
    loaded: Mapping[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    if "config" not in loaded or "facts" not in loaded:
        raise InputError(build, "is a stage, not a built set", "Give the folder above it")
    recipe = Recipe.model_validate(loaded["config"])
    return folder, (load_policy(recipe.policy), recipe)
