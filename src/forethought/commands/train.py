"""`forethought train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.table import Table

from forethought.commands.shared import quiet
from forethought.commands.terminal import console
from forethought.errors import ConfigError, InputError

if TYPE_CHECKING:
    from forethought.commands.terminal import Terminal
    from forethought.pipeline.recipe import Recipe
    from forethought.records import Example
    from forethought.train.config import TrainConfig
    from forethought.train.methods.base import TrainingMethod


def train(
    examples: Path,
    out: Path,
    recipe_file: Path | None,
    model: str,
    method: str | None,
    max_tokens: int | None,
    complied: Path | None,
    merge: bool,
    held_out: float | None = None,
    packing: bool | None = None,
    trackers: Sequence[str] = (),
) -> None:
    """Trains on built rows by a method; `method` None is SCoT, answering as the recipe says.

    `held_out` is the share of families that training is measured by and never sees; None holds nothing out. `packing`
    None and no `trackers` leave the recipe's settings.
    """
    quiet()
    from forethought.commands.terminal import Terminal
    from forethought.engine.weights import load_tokenizer, merge_adapter
    from forethought.pipeline.recipe import BuildConfig, load_recipe
    from forethought.policy import load_policy
    from forethought.train.config import is_first
    from forethought.train.held_out import hold_out
    from forethought.train.methods.base import Job, Material
    from forethought.train.prepare import COMPLIED, read_examples
    from forethought.train.run import train_method

    recipe = load_recipe(recipe_file) if recipe_file else None
    base = recipe.model if recipe else model
    build = recipe.build if recipe else BuildConfig()
    chosen, config = _method(method, recipe, base)
    config = _adjusted(config, packing, trackers)
    if complied is not None and not chosen.needs_complied:
        raise ConfigError("--complied", f"method '{chosen.name}' needs no such answers", "Leave it out")
    rows = read_examples(examples, chosen)
    if not rows:
        raise InputError(examples, "holds no rows", "Build them first: forethought run")
    measured: Sequence[Example] = ()
    if held_out is not None:
        rows, measured = hold_out(rows, held_out)
    tokenizer, terminal = load_tokenizer(base), Terminal(console)
    harmful = _complied(base, rows, complied or out / COMPLIED, terminal) if chosen.needs_complied else {}
    rules = load_policy(recipe.policy if recipe else None)
    material = Material(rows, tokenizer, rules, build.format, build.detail, config.seed, harmful)
    with terminal.bar("train") as bar:
        counts = train_method(Job(base, chosen, material, config, out, max_tokens, bar.step, terminal.say, measured))
    if not is_first():
        return
    taught = f"{counts['rows']:.0f} rows, {counts['tokens']:.0f} tokens"
    console.print(f"Trained on {taught} by {chosen.name}: {out}", highlight=False)
    if "kept_step" in counts:
        losses = f"refusal {counts['held_out_refusal']:.3f}, benign {counts['held_out_benign']:.3f} nats a token"
        console.print(f"Kept step {counts['kept_step']:.0f}: held-out loss {losses}", highlight=False)
    if merge:
        console.print(f"Merged: {merge_adapter(out)}", highlight=False)


def list_methods() -> None:
    """Prints every method's name and title, whether it thinks, and what it needs besides rows."""
    quiet()
    from forethought.train.methods.catalogue import METHODS

    table = Table("method", "", "thinks", "needs besides rows", caption="How to choose: docs/train.md", box=None)
    for method in METHODS.values():
        needs = "the base model's harmful answers" if method.needs_complied else ""
        table.add_row(method.name, method.title, "yes" if method.thinks else "no", needs)
    console.print(table)


def _method(name: str | None, recipe: Recipe | None, base: str) -> tuple[TrainingMethod, TrainConfig]:
    """The method, and the training settings with its own in place of the recipe's."""
    from forethought.engine.embedded import EMBEDDED
    from forethought.pipeline.taught_by import taught_by
    from forethought.train.config import TrainConfig, small_model
    from forethought.train.methods.catalogue import get_method

    if recipe is not None and name in (None, recipe.method):
        return taught_by(recipe)
    config = recipe.training if recipe else small_model() if base == EMBEDDED else TrainConfig()
    chosen = get_method(name or ("scot_split" if config.method == "lora" else "scot"))
    return chosen, chosen.configured(config)


def _adjusted(config: TrainConfig, packing: bool | None, trackers: Sequence[str]) -> TrainConfig:
    """The settings with the command's own in place of the recipe's."""
    from forethought.train.config import Tracker, TrainConfig

    for name in trackers:
        if name not in get_args(Tracker):
            raise ConfigError(f"--tracker {name}", "there is no such tracker", f"Use {', '.join(get_args(Tracker))}")
    given = {"packing": packing, "trackers": tuple(trackers) or None}
    changed = {name: value for name, value in given.items() if value is not None}
    return TrainConfig.model_validate({**config.model_dump(), **changed}) if changed else config


def _complied(base: str, rows: Sequence[Example], file: Path, terminal: Terminal) -> dict[str, str]:
    """The base model's own answers to the harmful requests, as far as they comply; says how many."""
    from forethought.train.prepare import complied_answers, harmful_requests

    requests = harmful_requests(rows)
    with terminal.bar("own answers") as bar:
        bar.total(len(requests))
        found = complied_answers(base, requests, file, bar.advance)
    console.print(
        f"The base model complies with {len(found)} of {len(requests)} harmful requests: {file}", highlight=False
    )
    return found
