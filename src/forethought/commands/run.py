"""`forethought run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forethought.commands.shared import quiet
from forethought.commands.terminal import Terminal, console
from forethought.errors import ConfigError

_RECIPES = {".yaml", ".yml"}


def run(
    what: str,
    out: Path | None,
    text_column: str | None,
    model: str | None,
    policy: Path | None,
    harmless: list[str],
    results: Path | None,
    yes: bool,
) -> int:
    """Runs a recipe, or the default recipe on a dataset. Returns the exit code: 1 for too many unscored answers."""
    quiet()
    from forethought.evals.cells import UNSCORED_LIMIT
    from forethought.pipeline.recipe import default_recipe, load_recipe
    from forethought.pipeline.run import run_recipe

    if Path(what).suffix.lower() in _RECIPES:
        if text_column:
            raise ConfigError(
                "--text-column", "belongs to a dataset, not to a recipe", "Set columns in the recipe's data"
            )
        recipe = load_recipe(Path(what))
    else:
        recipe = default_recipe(what, text_column)
    update: dict[str, Any] = {}
    if model is not None:
        update["model"] = model
    if policy is not None:
        update["policy"] = policy
    if harmless:
        from forethought.data.sources import SourceSpec

        added = (*recipe.data.harmless, *(SourceSpec(path=path) for path in harmless))
        update["data"] = recipe.data.model_copy(update={"harmless": added})
    recipe = recipe.model_copy(update=update)
    folder = out or Path("runs") / recipe.name
    terminal = Terminal(max_cost=1.0, yes=yes)
    found = run_recipe(recipe, folder, results or folder / "results.json", terminal)
    terminal.table(found.figures, found.systems)
    console.print(f"Report: {found.page}", highlight=False, soft_wrap=True)
    console.print(f"Try it: forethought chat {folder}", highlight=False, soft_wrap=True)
    if found.unscored > UNSCORED_LIMIT:
        console.print(f"[red]{found.unscored:.1%} of one defence's answers could not be judged[/red]: see the page")
        return 1
    return 0
