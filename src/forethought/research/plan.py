"""What training a recipe takes, before it is run: whether that fits, and what would make it fit.

Rows that are built are counted. What is not built yet is estimated: shipped requests go the way that the recipe's own
would go.
"""

from __future__ import annotations

import contextlib
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from transformers import AutoConfig

from forethought.chat import Tokenizer
from forethought.data.evolve import apply_style, draw_styles
from forethought.data.shipped import shipped_requests
from forethought.data.sources import sample
from forethought.data.teach import teach
from forethought.errors import ConfigError, InputError, ModelError, reason_of
from forethought.models.weights import EMBEDDED, has_fast_bfloat16, load_tokenizer, resolve_model
from forethought.pipeline.recipe import BuildConfig, Recipe, load_recipe
from forethought.pipeline.rows import operators_of
from forethought.policy import load_policy
from forethought.records import Example, Record, Request, read_jsonl
from forethought.research import PlanSettings
from forethought.research.footprint import Devices, Footprint, footprint
from forethought.training.config import TrainConfig
from forethought.training.rows import IGNORED, TokenRow, tokenize
from forethought.yamlfile import parse_yaml, read_text

_SAMPLED = 60
"""Requests of each term: the mean of their rows' tokens is known to a few per cent."""
_SOURCE_ANSWER = 100
"""Tokens of a dataset's own answer, where those are taught."""


class Amount(Record):
    """How much there is to train on, one epoch."""

    rows: int = Field(ge=1)
    tokens: int = Field(ge=1)
    """Prompts included, padding left out."""
    longest: int = Field(ge=1)
    """Tokens of the longest row."""
    taught_share: float = Field(gt=0.0, le=1.0)
    """Share of tokens that bear loss."""


def counted(rows: Sequence[TokenRow]) -> Amount:
    """The amount of some rows, at least one."""
    tokens = sum(row.length for row in rows)
    taught = sum(label != IGNORED for row in rows for label in row.labels)
    return Amount(
        rows=len(rows), tokens=tokens, longest=max(row.length for row in rows), taught_share=max(taught, 1) / tokens
    )


class Shape(Record):
    """One entry of architectures.yaml."""

    source: str
    """The model whose config these fields are from."""
    parameters: int
    config: dict[str, Any]
    """Fields of its transformers config, `model_type` among them."""


class _Shapes(Record):
    shapes: dict[str, Shape]


@lru_cache(maxsize=1)
def known_shapes() -> dict[str, Shape]:
    """All entries of architectures.yaml, by name."""
    file = Path(__file__).with_name("architectures.yaml")
    text = read_text(file, "file", "Install forethought again")
    return parse_yaml(text, file.name, "list of shapes", _Shapes, "shapes", "docs/plan.md").shapes


def known_shape(name: str) -> Shape | None:
    """The entry of this name (`llama-8b`), or of the model that it is from (its hub name)."""
    by_source = {shape.source: shape for shape in known_shapes().values()}
    return known_shapes().get(name) or by_source.get(name)


def architecture(name: str) -> Any:
    """The transformers config of a known shape, a folder, a hub name, or `embedded`. Raises ModelError.

    A hub name whose shape is known is not looked up.
    """
    shape = known_shape(name)
    if shape is not None:
        fields = dict(shape.config)
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    try:
        return AutoConfig.from_pretrained(resolve_model(name))
    except (OSError, ValueError) as error:
        known = ", ".join(known_shapes())
        fix = f"Give a folder, a hub name, or one of: {known}"
        raise ModelError(name, f"has no config ({reason_of(error)})", fix) from error


HEADROOM = 0.1
"""Share of a device's memory that is left to the framework, its kernels and fragmentation."""
_MOST_DEVICES = 64


class Plan(Record):
    """What a run takes."""

    model: str
    rows: int
    tokens: int
    """Of all epochs."""
    steps: int
    devices: Devices
    device_gib: float
    """Memory of one device."""
    footprint: Footprint
    needed_gib: float
    """Of one device, all parts together."""
    fits: bool
    fix: str
    """What would make it fit; empty where it does."""
    hours: float
    assumptions: tuple[str, ...] = ()


def plan(
    name: str,
    architecture: Any,
    config: TrainConfig,
    amount: Amount,
    devices: Devices,
    device_gib: float,
    flops_a_second: float,
    assumptions: tuple[str, ...] = (),
) -> Plan:
    """The plan for training a model of a transformers config; `flops_a_second` is that of one device."""
    found = footprint(architecture, config, amount.longest, amount.taught_share, devices)
    tokens = round(amount.tokens * config.epochs)
    fits = _fits(found, device_gib)
    return Plan(
        model=name,
        rows=amount.rows,
        tokens=tokens,
        steps=math.ceil(math.ceil(amount.rows / config.batch_size) * config.epochs),
        devices=devices,
        device_gib=device_gib,
        footprint=found,
        needed_gib=found.device_gib,
        fits=fits,
        fix="" if fits else _fix(architecture, config, amount, devices, device_gib),
        hours=tokens * found.flops_a_token / (flops_a_second * devices.n) / 3600.0,
        assumptions=assumptions,
    )


def _fits(found: Footprint, device_gib: float) -> bool:
    return found.device_gib <= (1.0 - HEADROOM) * device_gib


def _fix(architecture: Any, config: TrainConfig, amount: Amount, devices: Devices, device_gib: float) -> str:
    """The first change that makes it fit, those that cost least before those that cost more."""
    for said, changed, spread in _changes(config, devices):
        found = footprint(architecture, changed, amount.longest, amount.taught_share, spread)
        if _fits(found, device_gib):
            return f"{said}: {found.device_gib:.1f} GiB a device"
    return f"no setting makes it fit into {device_gib:g} GiB on up to {_MOST_DEVICES} devices"


def _changes(config: TrainConfig, devices: Devices) -> Iterator[tuple[str, TrainConfig, Devices]]:
    again = config.model_copy(update={"gradient_checkpointing": True})
    sharded = devices.model_copy(update={"sharded": True})
    if not config.gradient_checkpointing:
        yield "gradient_checkpointing: true", again, devices
    if devices.n > 1 and not devices.sharded:
        yield "shard (FSDP2 or ZeRO-3, --sharded)", config, sharded
        yield "shard, with gradient_checkpointing: true", again, sharded
    one_each = again.model_copy(update={"batch_size": devices.n})
    if config.batch_size > devices.n:
        said = f"batch_size: {devices.n}, with gradient_checkpointing: true"
        yield said, one_each, devices
        if devices.n > 1 and not devices.sharded:
            yield f"shard, {said}", one_each, sharded
    n = devices.n * 2
    while n <= _MOST_DEVICES:
        more = f"--devices {n} --sharded, with gradient_checkpointing: true and batch_size: {n}"
        yield more, again.model_copy(update={"batch_size": n}), sharded.model_copy(update={"n": n})
        n *= 2


_STEPS = 3


def measured_flops_a_second(base: str, rows: Sequence[TokenRow], config: TrainConfig, flops_a_token: float) -> float:
    """What this machine does: three steps are trained, the first is left out, and the result is thrown away.

    Raises ConfigError for fewer rows than that takes.
    """
    from forethought.training.fit import train  # torch and trl take seconds to load

    needed = _STEPS * config.batch_size
    if len(rows) < needed:
        raise ConfigError("--measure", f"needs {needed} rows of examples, there are {len(rows)}", "Build more rows")
    # Evenly spaced: rows of a kind stand together.
    chosen = list(rows[:: len(rows) // needed][:needed])
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        once = config.model_copy(update={"epochs": 1.0, "checkpoint_steps": 1000})
        train(base, chosen, once, Path(folder), lambda *_: times.append(time.perf_counter()))
    tokens = sum(row.length for row in chosen) * (_STEPS - 1) / _STEPS
    return tokens * flops_a_token / (times[-1] - times[0])


# From a recipe to its plan.


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


class Expected(NamedTuple):
    """Means over the rows of one term."""

    tokens: float
    taught: float
    """Tokens that bear loss."""


def expected_rows(recipe: Recipe, tokenizer: Tokenizer) -> tuple[Expected, Expected]:
    """(harmful, harmless): rows in the recipe's styles and format, taught by rules, with answers of its length."""
    policy, build, seed = load_policy(recipe.policy), recipe.build, recipe.seed
    operators = operators_of(build)

    def mean(requests: Sequence[Request], per_seed: float, answer: int) -> Expected:
        rng = random.Random(seed)
        drawn = draw_styles(sample(requests, _SAMPLED), operators, per_seed, build.styled_share, seed)
        styled = [row if name is None else apply_style(row, operators[name], seed) for row, name in drawn]
        examples = [teach(row, policy, seed, thought_only=rng.random() >= build.refusal_share) for row in styled]
        rows = [tokenize(example, tokenizer, policy, build.format, build.detail, seed) for example in examples]
        taught = sum(label != IGNORED for row in rows for label in row.labels) / len(rows)
        return Expected(sum(row.length for row in rows) / len(rows) + answer, taught + answer)

    harmful = [request for request in shipped_requests("harmful") if request.rules]
    return (
        mean(harmful, build.rows_per_harmful, 0),
        mean(shipped_requests("ordinary"), build.rows_per_harmless, _answer_tokens(build)),
    )


def _answer_tokens(build: BuildConfig) -> int:
    """Of a harmless row; where few rows have an answer, none."""
    if build.answers == "source":
        return _SOURCE_ANSWER
    return build.own_answer_tokens if build.answers == "own" and build.own_answers is None else 0


def expected_counts(recipe: Recipe) -> tuple[float, float] | None:
    """(harmful, harmless) rows by the limits that a recipe sets to its sources; None where a source has none."""
    data, build, nothing = recipe.data, recipe.build, math.inf
    most = nothing if data.max_harmless is None else data.max_harmless
    harmful = sum(nothing if spec.limit is None else spec.limit for spec in data.harmful)
    harmless = sum(min(nothing if spec.limit is None else spec.limit, most) for spec in data.harmless)
    if nothing in (harmful, harmless):
        return None
    return harmful * build.rows_per_harmful, harmless * build.rows_per_harmless
