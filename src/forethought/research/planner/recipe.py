"""What training a recipe takes, before it is run.

Rows that are built are counted. What is not built yet is estimated: shipped requests go the way that the recipe's own
would go.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from forethought.chat import Tokenizer
from forethought.data.evolve import evolve
from forethought.data.shipped import shipped_requests
from forethought.data.sources import sample
from forethought.data.teach import teach
from forethought.errors import ConfigError, InputError, ModelError
from forethought.models.weights import EMBEDDED, has_fast_bfloat16, load_tokenizer
from forethought.pipeline.recipe import BuildConfig, Recipe, load_recipe
from forethought.pipeline.rows import operators_of
from forethought.policy import Policy, load_policy
from forethought.records import Example, Record, Request, read_jsonl
from forethought.research.planner.footprint import Devices, footprint
from forethought.research.planner.plan import (
    HEADROOM,
    Amount,
    Plan,
    architecture,
    counted,
    known_shape,
    known_shapes,
    measured_flops_a_second,
    plan,
)
from forethought.training.rows import IGNORED, TokenRow, tokenize

_SAMPLED = 60
"""Requests of each term: the mean of their rows' tokens is known to a few per cent."""
_SOURCE_ANSWER = 100
"""Tokens of a dataset's own answer, where those are taught."""


class PlanSettings(Record):
    """What is planned for, besides the recipe."""

    model: str | None = None
    """Instead of the recipe's: a folder, or a known shape (`llama-70b`), which needs no weights."""
    examples: Path | None = None
    """Built rows, which are counted."""
    rows: int | None = Field(default=None, ge=1)
    """How many, where there are no examples; None is what the recipe's budget or its sources' limits give."""
    row_tokens: int | None = Field(default=None, ge=1)
    """Mean tokens of a row, where there are no examples; None is what shipped requests give."""
    longest: int = Field(default=1024, ge=2)
    """Tokens of the longest row, where there are no examples."""
    devices: int = Field(default=1, ge=1)
    sharded: bool = False
    """Weights are divided among devices."""
    device_gib: float = Field(default=80.0, gt=0)
    tflops: float = Field(default=989.0, gt=0)
    """Peak of one device, in 10^12 operations a second."""
    mfu: float = Field(default=0.35, gt=0, le=1)
    """Share of the peak that training reaches."""
    measure: bool = False
    """Three steps are trained on the examples here, and the rate is taken from them."""


def plan_recipe(recipe: Recipe | Path, settings: PlanSettings | None = None) -> Plan:
    """What training a recipe takes: parameters, steps, memory of a device, hours, and what was assumed for that.

    Shapes are enough: no weights are loaded, and nothing is trained unless `settings.measure`. Raises ConfigError where
    it can't be told how much there is to train on, InputError for examples without rows, ModelError for a model of
    which nothing is known.
    """
    settings = settings or PlanSettings()
    recipe = load_recipe(recipe) if isinstance(recipe, Path) else recipe
    if settings.model is not None:
        recipe = recipe.model_copy(update={"model": settings.model})
    shape = architecture(recipe.model)
    rows: list[TokenRow] = []
    if settings.examples is not None:
        rows, amount_said = _built_rows(recipe, settings.examples)
        amount = counted(rows)
    else:
        amount, amount_said = _expected_amount(recipe, settings)
    # A measurement is of this machine, whose frozen weights may be float32.
    weight_bytes = 4 if settings.measure and not has_fast_bfloat16() else 2
    devices = Devices(n=settings.devices, sharded=settings.sharded, weight_bytes=weight_bytes)
    if settings.measure:
        rate = _measured_rate(recipe, rows, shape, devices)
        rate_said = f"{rate / 1e12:.3g} TFLOP/s a device, as three steps on this machine gave"
    else:
        rate = settings.tflops * 1e12 * settings.mfu
        rate_said = f"{settings.tflops:g} TFLOP/s a device at most, {settings.mfu:.0%} of it reached"
    assumptions = (
        *amount_said,
        rate_said,
        f"frozen weights of {weight_bytes} bytes; {HEADROOM:.0%} of memory left to the framework",
        "the peak is a batch of longest rows; padding, loading and saving take no time, nor do devices wait",
    )
    return plan(recipe.model, shape, recipe.training, amount, devices, settings.device_gib, rate, assumptions)


def _measured_rate(recipe: Recipe, rows: Sequence[TokenRow], shape: Any, devices: Devices) -> float:
    """Operations a second of this machine."""
    if recipe.model in known_shapes():
        raise ConfigError(f"--measure {recipe.model}", "has shapes here and no weights", "Give --tflops and --mfu")
    if not rows:
        raise ConfigError("--measure", "trains three steps on real rows", "Give --examples as well")
    amount = counted(rows)
    work = footprint(shape, recipe.training, amount.longest, amount.taught_share, devices).flops_a_token
    return measured_flops_a_second(recipe.model, rows, recipe.training, work)


def _built_rows(recipe: Recipe, file: Path) -> tuple[list[TokenRow], tuple[str, ...]]:
    """Tokenised examples, and what was assumed for that."""
    examples = list(read_jsonl(file, Example))
    if not examples:
        raise InputError(file, "holds no rows", "Build them first: forethought build")
    tokenizer, said = _tokenizer(recipe)
    policy, build = load_policy(recipe.policy), recipe.build
    return [tokenize(row, tokenizer, policy, build.format, build.detail, recipe.seed) for row in examples], said


def _tokenizer(recipe: Recipe, its_own: bool = True) -> tuple[Any, tuple[str, ...]]:
    """The model's tokenizer, or the embedded one in its place, and what that assumes.

    A known shape by its short name has none; one by its hub name may be here. Raises ModelError for another model's.
    """
    if known_shape(recipe.model) is None:
        return load_tokenizer(recipe.model), ()
    if its_own and recipe.model not in known_shapes():
        with contextlib.suppress(ModelError):
            return load_tokenizer(recipe.model), ()
    said = f"tokens counted by the tokenizer of {EMBEDDED}: {recipe.model}'s own may need fewer"
    return load_tokenizer(EMBEDDED), (said,)


def _expected_amount(recipe: Recipe, settings: PlanSettings) -> tuple[Amount, tuple[str, ...]]:
    """How much a recipe would build, and what was assumed for that."""
    tokenizer, said = _tokenizer(recipe, its_own=False)
    terms = expected_rows(recipe, tokenizer)
    # Where that can't be told, as many of one term as of the other.
    counts = expected_counts(recipe) or (1.0, 1.0)
    shares = [count / sum(counts) for count in counts]
    mean = sum(share * row.tokens for share, row in zip(shares, terms, strict=True))
    taught = sum(share * row.taught for share, row in zip(shares, terms, strict=True)) / mean
    mean = settings.row_tokens or mean
    rows, how = _row_count(recipe, settings.rows, mean)
    amount = Amount(rows=rows, tokens=round(rows * mean), longest=settings.longest, taught_share=taught)
    like = "as asked" if settings.row_tokens else "as shipped requests have in the recipe's styles and format"
    lengths = f"rows of {mean:.0f} tokens, {like}, {shares[0]:.0%} of them harmful"
    lengths += f"; the longest {settings.longest}; {taught:.0%} of tokens taught"
    return amount, (how, f"{lengths} (count them: --examples)", *said)


def _row_count(recipe: Recipe, asked: int | None, mean: float) -> tuple[int, str]:
    """(rows, how that is known). Raises ConfigError where it is not."""
    if asked is not None:
        return asked, f"{asked:,} rows, as asked"
    counts, budget = expected_counts(recipe), recipe.build.max_tokens
    if budget is not None and (counts is None or sum(counts) * mean > budget):
        return max(1, int(budget / mean)), "all of the recipe's token budget"
    if counts is None:
        fix = "Give --rows; or build them, then give --examples RUN/4-build/examples.jsonl"
        rule = "is not set, nor is the limit of each source: how much there is to train on can't be told"
        raise ConfigError("build.max_tokens", rule, fix)
    harmful, harmless = (round(count) for count in counts)
    told = f"{harmful:,} harmful and {harmless:,} harmless rows by the sources' limits, none dropped"
    return harmful + harmless, told


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
