"""Examples as token rows for a recipe's model."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.engine.local import load_tokenizer
from forethought.pipeline.recipe import Recipe
from forethought.policy import Policy
from forethought.records import Example
from forethought.train.rows import TokenRow, tokenize


def to_tokens(recipe: Recipe, policy: Policy, examples: Sequence[Example]) -> list[TokenRow]:
    """One token row an example, in order."""
    tokenizer = load_tokenizer(recipe.model)
    build = recipe.build
    return [tokenize(example, tokenizer, policy, build.format, build.detail, recipe.seed) for example in examples]
