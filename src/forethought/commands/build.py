"""`forethought build`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.commands.terminal import console
from forethought.errors import ConfigError

_RECIPES = {".yaml", ".yml"}


@dataclass(frozen=True)
class Overrides:
    """What the command line says instead of the recipe; None and empty leave the recipe's."""

    harmless: tuple[str, ...] = ()
    text_column: str | None = None
    teacher: str | None = None
    base_url: str | None = None
    concurrency: int | None = None
    price_in: float | None = None
    price_out: float | None = None
    policy: Path | None = None
    answers: str | None = None
    model: str | None = None
    format: str | None = None
    detail: str | None = None
    variants: float | None = None
    twins: float | None = None
    operator_folder: Path | None = None
    against: tuple[str, ...] = ()
    limit: int | None = None
    seed: int | None = None


def build(sources: list[str], out: Path | None, overrides: Overrides, max_cost: float, yes: bool) -> None:
    """Builds a training set from a recipe, or from datasets by the default one."""
    from forethought.commands.inspect import summary_view
    from forethought.commands.terminal import Terminal
    from forethought.pipeline.build import PAGE, build_dataset
    from forethought.pipeline.recipe import build_recipe, load_recipe

    if any(Path(source).suffix.lower() in _RECIPES for source in sources):
        if len(sources) > 1:
            raise ConfigError(sources[1], "stands beside a recipe", "List every source in the recipe's data")
        recipe = load_recipe(Path(sources[0]))
    else:
        recipe = build_recipe(sources, overrides.text_column, overrides.limit)
    recipe = _changed(recipe, overrides)
    folder = out or Path("runs") / recipe.name
    dataset, summary = build_dataset(recipe, folder, Terminal(console, max_cost, yes))
    console.print(summary_view(summary.model_copy(update={"samples": ()})))
    console.print(f"Data: {dataset}", highlight=False, soft_wrap=True)
    console.print(f"Page: {dataset / PAGE}", highlight=False, soft_wrap=True)
    console.print(f"Look at it: forethought data inspect {folder}", highlight=False, soft_wrap=True)


def _changed(recipe: Any, said: Overrides) -> Any:
    """The recipe with what the command line says, checked by its schema again."""
    from forethought.pipeline.recipe import changed

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
