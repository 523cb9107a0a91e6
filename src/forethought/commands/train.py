"""`forethought train`."""

from __future__ import annotations

from pathlib import Path

from forethought.commands.shared import console, quiet
from forethought.errors import InputError


def train(examples: Path, out: Path, recipe_file: Path | None, model: str, merge: bool) -> None:
    """Trains on built rows."""
    quiet()
    from forethought.engine.embedded import EMBEDDED
    from forethought.engine.local import Settings, load_tokenizer, merge_adapter, write_settings
    from forethought.pipeline.recipe import BuildConfig, load_recipe
    from forethought.pipeline.terminal import Terminal
    from forethought.policy import load_policy
    from forethought.records import Example, read_jsonl
    from forethought.train.config import TrainConfig, small_model
    from forethought.train.fit import train as fit
    from forethought.train.rows import tokenize

    recipe = load_recipe(recipe_file) if recipe_file else None
    rules = load_policy(recipe.policy if recipe else None)
    base = recipe.model if recipe else model
    build = recipe.build if recipe else BuildConfig()
    config = recipe.training if recipe else small_model() if base == EMBEDDED else TrainConfig()
    rows = list(read_jsonl(examples, Example))
    if not rows:
        raise InputError(examples, "holds no rows", "Build them first: forethought run")
    tokenizer = load_tokenizer(base)
    tokens = [tokenize(row, tokenizer, rules, build.format, build.detail, config.seed) for row in rows]
    terminal = Terminal(console)
    with terminal.progress("train") as bar:
        counts = fit(base, tokens, config, out, bar.step)
    seen = tuple(sorted({row.request.operator for row in rows if row.request.operator}))
    answer_with = recipe.answer_with if recipe else "base"
    settings = Settings(
        policy=rules,
        format=build.format,
        detail=build.detail,
        answer_with=answer_with if config.method == "lora" else "adapter",
        seen_operators=seen,
    )
    write_settings(out, settings)
    console.print(f"Trained on {counts['rows']:.0f} rows, {counts['tokens']:.0f} tokens: {out}", highlight=False)
    if merge:
        console.print(f"Merged: {merge_adapter(out)}", highlight=False)
