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

import yaml
from pydantic import Field
from transformers import AutoConfig

from forethought.chat import Tokenizer
from forethought.data.evolve import apply_style, draw_styles
from forethought.data.shipped import shipped_requests, under
from forethought.data.sources import sample
from forethought.data.teach import teach
from forethought.errors import ConfigError, InputError, ModelError, reason_of
from forethought.models.settings import EMBEDDED
from forethought.models.weights import batches_in_bfloat16, load_tokenizer, resolve_model
from forethought.pipeline.check import check_recipe
from forethought.pipeline.evolve import operators_of
from forethought.pipeline.recipe import Recipe, load_recipe
from forethought.pipeline.requests import missing
from forethought.pipeline.solving import solving_rows, with_solution
from forethought.policy import Policy, load_policy
from forethought.records import Example, Record, Request, read_jsonl
from forethought.research import PlanSettings
from forethought.research.fleet import Fleet, fleet
from forethought.research.footprint import Devices, Footprint, device, footprint
from forethought.training.config import TrainConfig
from forethought.training.rows import IGNORED, TokenRow, tokenize
from forethought.yamlfile import shipped_yaml

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


@lru_cache(maxsize=1)
def known_shapes() -> dict[str, Shape]:
    """All entries of architectures.yaml, by name."""
    return shipped_yaml("research/architectures.yaml", dict[str, dict[str, Shape]])["shapes"]


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
        fix = f"Give a folder, a hub name, or one of: {', '.join(known_shapes())}"
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
    stops: tuple[str, ...] = ()
    """What `run` would stop at on this recipe, each with its fix; empty where nothing is known to."""
    notes: tuple[str, ...] = ()
    """What `run` would say of the policy before it begins."""
    teaching: Fleet | None = None
    """What asking a teacher takes, where prompts were named."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """All that it was planned for, defaults written out."""


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
    room, fix = (1.0 - HEADROOM) * device_gib, ""
    if found.device_gib > room:
        fix = f"no setting makes it fit into {device_gib:g} GiB on up to {_MOST_DEVICES} devices"
        for said, changed, spread in _changes(config, devices):
            after = footprint(architecture, changed, amount.longest, amount.taught_share, spread).device_gib
            if after <= room:
                fix = f"{said}: {after:.1f} GiB a device"
                break
    return Plan(
        model=name,
        rows=amount.rows,
        tokens=tokens,
        steps=math.ceil(math.ceil(amount.rows / config.batch_size) * config.epochs),
        devices=devices,
        device_gib=device_gib,
        footprint=found,
        needed_gib=found.device_gib,
        fits=not fix,
        fix=fix,
        hours=tokens * found.flops_a_token / (flops_a_second * devices.n) / 3600.0,
        assumptions=assumptions,
    )


def _changes(config: TrainConfig, devices: Devices) -> Iterator[tuple[str, TrainConfig, Devices]]:
    """What could make it fit, changes that cost least first."""
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
    policy = load_policy(recipe.policy)
    if settings.model is not None:
        recipe = recipe.model_copy(update={"model": settings.model})
    shape = architecture(recipe.model)
    rows: list[TokenRow] = []
    if settings.examples is not None:
        examples = list(read_jsonl(settings.examples, Example))
        if not examples:
            raise InputError(settings.examples, "holds no rows", "Build them first: forethought build")
        tokenizer, amount_said = _tokenizer(recipe)
        build = recipe.build
        rows = [tokenize(row, tokenizer, policy, build.format, build.detail, recipe.seed) for row in examples]
        amount = counted(rows)
    else:
        amount, amount_said = _expected_amount(recipe, settings)
    on = device(settings)
    # A measurement is of this machine, whose frozen weights may be float32.
    weight_bytes = 4 if settings.measure and not batches_in_bfloat16() else on.weight_bytes
    devices = Devices(n=settings.devices, sharded=settings.sharded, weight_bytes=weight_bytes)
    if settings.measure:
        if recipe.model in known_shapes():
            raise ConfigError(f"--measure {recipe.model}", "has shapes here and no weights", "Give --tflops and --mfu")
        if not rows:
            raise ConfigError("--measure", "trains three steps on real rows", "Give --examples as well")
        work = footprint(shape, recipe.training, amount.longest, amount.taught_share, devices).flops_a_token
        rate = measured_flops_a_second(recipe.model, rows, recipe.training, work)
        rate_said = f"{rate / 1e12:.3g} TFLOP/s a device, as three steps on this machine gave"
    else:
        rate, rate_said = on.tflops * 1e12 * on.mfu, on.said
    assumptions = (
        *amount_said,
        rate_said,
        f"frozen weights of {weight_bytes} bytes; {HEADROOM:.0%} of memory left to the framework",
        "the peak is a batch of longest rows; padding, loading and saving take no time, nor do devices wait",
    )
    found = plan(recipe.model, shape, recipe.training, amount, devices, on.gib, rate, assumptions)
    stops, notes = _told_by_run(recipe, policy)
    told = {"stops": stops, "notes": notes, "recipe": yaml.safe_load(recipe.text)}
    return found.model_copy(update=told | {"teaching": fleet(recipe, settings)})


def _told_by_run(recipe: Recipe, policy: Policy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what `run` would stop at, what it would say of the policy), by the same checks."""
    notes: list[str] = []
    stops = [f"{source}: {why}" for source, why in missing(recipe).items()]
    try:
        check_recipe(recipe, policy, notes.append)
    except ConfigError as error:
        stops.append(str(error))
    return tuple(stops), tuple(notes)


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
    counts, budget, solve = expected_counts(recipe), recipe.build.max_tokens, recipe.build.solve
    kinds = expected_rows(recipe, tokenizer)
    solving = 0 if solve is None else solve.rows + solve.skill
    # Where it can't be told how many there are of each, as many of one term as of the other.
    plain = counts or _filling(kinds, solving, settings.rows, budget)
    amounts = [*plain, solving][: len(kinds)]
    mean = sum(count * row.tokens for count, row in zip(amounts, kinds, strict=True)) / sum(amounts)
    taught = sum(count * row.taught for count, row in zip(amounts, kinds, strict=True)) / sum(amounts) / mean
    mean = settings.row_tokens or mean
    if settings.rows is not None:
        rows, how = settings.rows, f"{settings.rows:,} rows, as asked"
    elif budget is not None and (counts is None or sum(amounts) * mean > budget):
        rows, how = max(1, int(budget / mean)), "all of the recipe's token budget"
    elif counts is not None:
        harmful, harmless = (round(count) for count in counts)
        rows = harmful + harmless + solving
        how = f"{harmful:,} harmful and {harmless:,} harmless rows by the sources' limits, none dropped"
        how += f", and {solving:,} that have to be solved" if solving else ""
    else:
        rule = "is not set, nor is the limit of each source: how much there is to train on can't be told"
        fix = "Give --rows; or build them, then give --examples RUN/4-build/examples.jsonl"
        raise ConfigError("build.max_tokens", rule, fix)
    amount = Amount(rows=rows, tokens=round(rows * mean), longest=settings.longest, taught_share=taught)
    like = "as asked" if settings.row_tokens else "as shipped requests have in the recipe's styles and format"
    harmful_share = (amounts[0] + (solve.rows / 2 if solve is not None else 0)) / sum(amounts)
    lengths = f"rows of {mean:.0f} tokens, {like}, {harmful_share:.0%} of them harmful"
    lengths += f"; the longest {settings.longest}; {taught:.0%} of tokens taught"
    return amount, (how, f"{lengths} (count them: --examples)", *said)


def _filling(kinds: Sequence[Expected], solving: int, rows: int | None, budget: int | None) -> tuple[float, float]:
    """(harmful, harmless): as many of one as of the other, so that they fill what is asked for beside those that have
    to be solved; one of each where nothing says how much that is."""
    if rows is not None:
        return max(rows - solving, 0) / 2, max(rows - solving, 0) / 2
    if budget is None:
        return 1.0, 1.0
    room = budget - (solving * kinds[2].tokens if solving else 0)
    each = max(room, 0.0) / (kinds[0].tokens + kinds[1].tokens)
    return each, each


class Expected(NamedTuple):
    """Means over the rows of one term."""

    tokens: float
    taught: float
    """Tokens that bear loss."""


def expected_rows(recipe: Recipe, tokenizer: Tokenizer) -> list[Expected]:
    """Harmful rows, harmless ones, and where the recipe has such those that have to be solved: in its styles and
    format, taught by rules, with answers of its length."""
    policy, build, seed = load_policy(recipe.policy), recipe.build, recipe.seed
    operators = operators_of(build)

    def mean(rows: Sequence[Request], answer: int) -> Expected:
        rng = random.Random(seed)
        examples = [teach(row, policy, seed, thought_only=rng.random() >= build.refusal_share) for row in rows]
        taught = [with_solution(example, build.solve) for example in examples]
        made = [tokenize(example, tokenizer, policy, build.format, build.detail, seed) for example in taught]
        bearing = sum(label != IGNORED for row in made for label in row.labels) / len(made)
        return Expected(sum(row.length for row in made) / len(made) + answer, bearing + answer)

    def styled(requests: Sequence[Request], per_seed: float) -> list[Request]:
        drawn = draw_styles(sample(requests, _SAMPLED), operators, per_seed, build.styled_share, seed)
        return [row if name is None else apply_style(row, operators[name], seed) for row, name in drawn]

    answer = 0  # of a harmless row; where few rows have one, none
    if build.answers == "source":
        answer = _SOURCE_ANSWER
    elif build.answers == "own" and build.own_answers is None:
        answer = build.own_answer_tokens
    harmful = [request for request in under(policy, shipped_requests("harmful"))[0] if request.rules]
    if not harmful:  # of no rule of this policy: its rules in turn, for rows as long as such a thought makes them
        harmful = [
            request.model_copy(update={"rules": (policy.rule_ids[place % len(policy.rules)],)})
            for place, request in enumerate(shipped_requests("harmful"))
        ]
    ordinary = shipped_requests("ordinary")
    found = [mean(styled(harmful, build.rows_per_harmful), 0), mean(styled(ordinary, build.rows_per_harmless), answer)]
    if build.solve is not None:
        few = build.solve.model_copy(update={"rows": _SAMPLED, "skill": 0})
        found.append(mean(solving_rows([*harmful, *shipped_requests("lookalike")], few, seed), 0))
    return found


def expected_counts(recipe: Recipe) -> tuple[float, float] | None:
    """(harmful, harmless) rows by the limits that a recipe sets to its sources; None where a source has none."""
    data, build, nothing = recipe.data, recipe.build, math.inf
    most = nothing if data.max_harmless is None else data.max_harmless
    harmful = sum(nothing if spec.limit is None else spec.limit for spec in data.harmful)
    harmless = sum(min(nothing if spec.limit is None else spec.limit, most) for spec in data.harmless)
    if nothing in (harmful, harmless):
        return None
    return harmful * build.rows_per_harmful, harmless * build.rows_per_harmless
