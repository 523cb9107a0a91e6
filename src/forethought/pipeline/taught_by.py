"""The training method that a recipe says."""

from __future__ import annotations

from forethought.pipeline.recipe import Recipe
from forethought.train.config import TrainConfig
from forethought.train.methods.base import TrainingMethod
from forethought.train.methods.catalogue import get_method


def taught_by(recipe: Recipe) -> tuple[TrainingMethod, TrainConfig]:
    """(the method, the settings that it trains with). Raises ConfigError for a method or a field that is not there.

    With all weights trained there is no base left to answer, so that such a model answers by itself.
    """
    split = recipe.answer_with == "base" and recipe.training.method == "lora"
    method = get_method(recipe.method or ("scot_split" if split else "scot")).tuned(recipe.procedure)
    if split and method.thinks:
        method = method.model_copy(update={"answer_with": "base"})
    return method, method.configured(recipe.training)
