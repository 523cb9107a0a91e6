"""Trains a model on built rows, by any method: what the command and the front door call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from forethought.errors import ConfigError, InputError
from forethought.manifest import let_read
from forethought.models.settings import EMBEDDED, SETTINGS_FILE
from forethought.models.weights import load_tokenizer, merge_adapter
from forethought.pipeline.recipe import BuildConfig, Recipe, load_recipe
from forethought.policy import load_policy
from forethought.progress import Progress
from forethought.records import Example
from forethought.training.config import Tracker, TrainConfig, is_first, small_model
from forethought.training.held_out import hold_out
from forethought.training.methods.base import Job, Material, TrainingMethod
from forethought.training.methods.catalogue import get_method
from forethought.training.run import COMPLIED, complied_answers, read_examples, train_method


@dataclass(frozen=True)
class TrainedModel:
    """Weights that were trained; `forethought.load(folder)` opens them."""

    folder: Path
    method: str
    counts: Mapping[str, Any]
    """`rows`, `tokens`, and with held-out rows `kept_step`, `held_out_refusal` and `held_out_benign` (nats a token)."""
    merged: Path | None = None
    """The same as one plain transformers model, where that was asked for."""


def train(
    examples: Path,
    out: Path,
    *,
    method: str | None = None,
    model: str = EMBEDDED,
    recipe: Path | None = None,
    max_tokens: int | None = None,
    complied: Path | None = None,
    held_out: float | None = None,
    packing: bool | None = None,
    trackers: Sequence[str] = (),
    merge: bool = False,
    progress: Progress | None = None,
) -> TrainedModel:
    """Trains on rows that `build` wrote; the same call goes on where one was stopped.

    `method` None is SCoT, answering as the recipe says. `recipe` names model, policy and settings in place of `model`
    and the defaults. `max_tokens` is the budget of one pass. `complied`: the base model's own harmful answers from an
    earlier run, for methods that need such. `held_out` is the share of families that training is measured by and never
    sees; None holds nothing out. `packing` None and no `trackers` leave the recipe's. `merge` writes a plain model too.
    Raises ForethoughtError when something can't be used.
    """
    progress = progress or Progress()
    known = load_recipe(recipe) if recipe else None
    base = known.model if known else model
    build = known.build if known else BuildConfig()
    chosen, config = _method(method, known, base)
    config = _adjusted(config, packing, trackers)
    if complied is not None and not chosen.needs_complied:
        raise ConfigError("complied", f"method '{chosen.name}' needs no such answers", "Leave it out")
    rows = read_examples(examples, chosen)
    if not rows:
        raise InputError(examples, "holds no rows", "Build them first: forethought build")
    measured: Sequence[Example] = ()
    if held_out is not None:
        rows, measured = hold_out(rows, held_out)
    tokenizer = load_tokenizer(base)
    harmful = complied_answers(base, rows, complied or out / COMPLIED, progress) if chosen.needs_complied else {}
    rules = load_policy(known.policy if known else None)
    material = Material(rows, tokenizer, rules, build.format, build.detail, config.seed, harmful)
    counts = train_method(Job(base, chosen, material, config, out, max_tokens, progress, held_out=measured))
    merged = merge_adapter(out) if merge and is_first() else None
    if is_first():
        let_read(out, out / SETTINGS_FILE)
    return TrainedModel(out, chosen.name, counts, merged)


def taught_by(recipe: Recipe) -> tuple[TrainingMethod, TrainConfig]:
    """(the method, the settings that it trains with). Raises ConfigError for a method or a field that is not there.

    With all weights trained there is no base left to answer, so that such a model answers by itself.
    """
    split = recipe.answer_with == "base" and recipe.training.method == "lora"
    method = get_method(recipe.method or ("scot_split" if split else "scot")).tuned(recipe.procedure)
    if split and method.thinks:
        method = method.model_copy(update={"answer_with": "base"})
    return method, method.configured(recipe.training)


def _method(name: str | None, recipe: Recipe | None, base: str) -> tuple[TrainingMethod, TrainConfig]:
    """The method, and the training settings with its own in place of the recipe's."""
    if recipe is not None and name in (None, recipe.method):
        return taught_by(recipe)
    config = recipe.training if recipe else small_model() if base == EMBEDDED else TrainConfig()
    chosen = get_method(name or ("scot_split" if config.method == "lora" else "scot"))
    return chosen, chosen.configured(config)


def _adjusted(config: TrainConfig, packing: bool | None, trackers: Sequence[str]) -> TrainConfig:
    """The settings with the command's own in place of the recipe's."""
    for name in trackers:
        if name not in get_args(Tracker):
            raise ConfigError(f"tracker {name}", "there is no such tracker", f"Use {', '.join(get_args(Tracker))}")
    given = {"packing": packing, "trackers": tuple(trackers) or None}
    changed = {name: value for name, value in given.items() if value is not None}
    return TrainConfig.model_validate({**config.model_dump(), **changed}) if changed else config
