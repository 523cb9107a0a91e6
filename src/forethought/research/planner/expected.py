"""What a recipe's rows will be like, before any is built: shipped requests go the way that its own would go."""

from __future__ import annotations

import random
from collections.abc import Sequence

from forethought.chat import Tokenizer
from forethought.data.evolve import evolve
from forethought.data.shipped import shipped_requests
from forethought.data.sources import sample
from forethought.data.teach import teach
from forethought.pipeline.recipe import BuildConfig, Recipe
from forethought.pipeline.rows import operators_of
from forethought.policy import Policy, load_policy
from forethought.records import Record, Request
from forethought.training.rows import IGNORED, tokenize

_SAMPLED = 60
"""Requests of each term: the mean of their rows' tokens is known to a few per cent."""
_SOURCE_ANSWER = 100
"""Tokens of a dataset's own answer, where those are taught."""


class Expected(Record):
    """Means over the rows of one term."""

    tokens: float
    taught: float
    """Tokens that bear loss."""


def expected_rows(recipe: Recipe, tokenizer: Tokenizer) -> tuple[Expected, Expected]:
    """(harmful, harmless): rows in the recipe's styles and format, taught by rules, with answers of its length."""
    policy = load_policy(recipe.policy)
    harmful = [request for request in shipped_requests("harmful") if request.rules]
    build = recipe.build
    return (
        _mean(sample(harmful, _SAMPLED), build.rows_per_harmful, 0, recipe, policy, tokenizer),
        _mean(
            sample(shipped_requests("ordinary"), _SAMPLED),
            build.rows_per_harmless,
            _answer_tokens(build),
            recipe,
            policy,
            tokenizer,
        ),
    )


def _mean(
    requests: Sequence[Request], per_seed: float, answer: int, recipe: Recipe, policy: Policy, tokenizer: Tokenizer
) -> Expected:
    build, seed = recipe.build, recipe.seed
    operators, rng = operators_of(build), random.Random(seed)
    styled = evolve(requests, operators, per_seed, build.styled_share, seed)
    examples = [teach(row, policy, seed, thought_only=rng.random() >= build.refusal_share) for row in styled]
    rows = [tokenize(example, tokenizer, policy, build.format, build.detail, seed) for example in examples]
    taught = sum(label != IGNORED for row in rows for label in row.labels) / len(rows)
    return Expected(tokens=sum(row.length for row in rows) / len(rows) + answer, taught=taught + answer)


def _answer_tokens(build: BuildConfig) -> int:
    """Of a harmless row; where few rows have an answer, none."""
    if build.answers == "source":
        return _SOURCE_ANSWER
    return build.own_answer_tokens if build.answers == "own" and build.own_answers is None else 0


def expected_counts(recipe: Recipe) -> tuple[float, float] | None:
    """(harmful, harmless) rows by the limits that a recipe sets to its sources; None where a source has none."""
    data, build = recipe.data, recipe.build
    harmful = [spec.limit for spec in data.harmful]
    harmless = [
        min((n for n in (spec.limit, data.max_harmless) if n is not None), default=None) for spec in data.harmless
    ]
    if None in harmful or None in harmless:
        return None
    return (
        sum(n for n in harmful if n is not None) * build.rows_per_harmful,
        sum(n for n in harmless if n is not None) * build.rows_per_harmless,
    )
