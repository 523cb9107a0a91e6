"""`forethought plan`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import quiet
from forethought.commands.terminal import console
from forethought.errors import ConfigError, InputError, ModelError
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.pipeline.recipe import Recipe
    from forethought.research.planner.footprint import Devices
    from forethought.research.planner.plan import Amount, Plan
    from forethought.training.rows import TokenRow


class Asked(Record):
    """What the command was asked for."""

    model: str | None
    """Instead of the recipe's."""
    examples: Path | None
    rows: int | None
    """How many, where there are no examples; None is what the recipe's budget or its sources' limits give."""
    row_tokens: int | None
    """Mean tokens of a row, where there are no examples; None is what shipped requests give."""
    longest: int
    """Tokens of the longest row, where there are no examples."""
    devices: int
    sharded: bool
    device_gib: float
    tflops: float
    """Peak of one device, in 10^12 operations a second."""
    mfu: float
    """Share of the peak that training reaches."""
    measure: bool


def plan(recipe_file: Path, asked: Asked, as_json: bool) -> None:
    """Prints what training a recipe takes; nothing is trained unless a measurement is asked for."""
    quiet()
    from forethought.pipeline.recipe import load_recipe
    from forethought.research.planner.plan import architecture, counted
    from forethought.research.planner.plan import plan as planned

    recipe = load_recipe(recipe_file)
    if asked.model is not None:
        recipe = recipe.model_copy(update={"model": asked.model})
    shape = architecture(recipe.model)
    rows, said = _rows(recipe, asked) if asked.examples else ([], ())
    amount, counted_so = (counted(rows), said) if rows else _assumed(recipe, asked)
    devices = _devices(asked)
    rate, rated = _rate(recipe, rows, shape, devices, asked)
    assumptions = (*counted_so, *rated, *_always(devices))
    found = planned(recipe.model, shape, recipe.training, amount, devices, asked.device_gib, rate, assumptions)
    if as_json:
        console.print_json(json.dumps(found.model_dump()))
    else:
        _show(found)


def _devices(asked: Asked) -> Devices:
    from forethought.models.weights import has_fast_bfloat16
    from forethought.research.planner.footprint import Devices

    # A measurement is of this machine, whose frozen weights may be float32.
    weight_bytes = 4 if asked.measure and not has_fast_bfloat16() else 2
    return Devices(n=asked.devices, sharded=asked.sharded, weight_bytes=weight_bytes)


def _rows(recipe: Recipe, asked: Asked) -> tuple[list[TokenRow], tuple[str, ...]]:
    """Tokenised examples, and what was assumed for that."""
    from forethought.policy import load_policy
    from forethought.records import Example, read_jsonl
    from forethought.training.rows import tokenize

    assert asked.examples is not None
    examples = list(read_jsonl(asked.examples, Example))
    if not examples:
        raise InputError(asked.examples, "holds no rows", "Build them first: forethought build")
    tokenizer, said = _tokenizer(recipe)
    rules, build = load_policy(recipe.policy), recipe.build
    return [tokenize(row, tokenizer, rules, build.format, build.detail, recipe.seed) for row in examples], said


def _tokenizer(recipe: Recipe, its_own: bool = True) -> tuple[Any, tuple[str, ...]]:
    """The model's tokenizer, or the embedded one in its place, and what that assumes.

    A known shape by its short name has none; one by its hub name may be here. Raises ModelError for another model's.
    """
    from forethought.models.weights import EMBEDDED, load_tokenizer
    from forethought.research.planner.plan import known_shape, known_shapes

    if known_shape(recipe.model) is None:
        return load_tokenizer(recipe.model), ()
    if its_own and recipe.model not in known_shapes():
        with contextlib.suppress(ModelError):
            return load_tokenizer(recipe.model), ()
    said = f"tokens counted by the tokenizer of {EMBEDDED}: {recipe.model}'s own may need fewer"
    return load_tokenizer(EMBEDDED), (said,)


def _assumed(recipe: Recipe, asked: Asked) -> tuple[Amount, tuple[str, ...]]:
    """How much a recipe would build, and what was assumed for that."""
    from forethought.research.planner.expected import expected_counts, expected_rows
    from forethought.research.planner.plan import Amount

    tokenizer, said = _tokenizer(recipe, its_own=False)
    harmful, harmless = expected_rows(recipe, tokenizer)
    # Where that can't be told, as many of one term as of the other.
    counts = expected_counts(recipe) or (1.0, 1.0)
    shares = [count / sum(counts) for count in counts]
    mean = sum(share * row.tokens for share, row in zip(shares, (harmful, harmless), strict=True))
    taught = sum(share * row.taught for share, row in zip(shares, (harmful, harmless), strict=True)) / mean
    mean = asked.row_tokens or mean
    rows, how = _row_count(recipe, asked, mean)
    amount = Amount(rows=rows, tokens=round(rows * mean), longest=asked.longest, taught_share=taught)
    like = "as asked" if asked.row_tokens else "as shipped requests have in the recipe's styles and format"
    lengths = f"rows of {mean:.0f} tokens, {like}, {shares[0]:.0%} of them harmful"
    lengths += f"; the longest {asked.longest}; {taught:.0%} of tokens taught"
    return amount, (how, f"{lengths} (count them: --examples)", *said)


def _row_count(recipe: Recipe, asked: Asked, mean: float) -> tuple[int, str]:
    """(rows, how that is known). Raises ConfigError where it is not."""
    from forethought.research.planner.expected import expected_counts

    if asked.rows is not None:
        return asked.rows, f"{asked.rows:,} rows, as asked"
    counts, budget = expected_counts(recipe), recipe.build.max_tokens
    if budget is not None and (counts is None or sum(counts) * mean > budget):
        return max(1, int(budget / mean)), "all of the recipe's token budget"
    if counts is None:
        fix = "Give --rows; or build them, then give --examples RUN/4-build/examples.jsonl"
        rule = "is not set, nor is the limit of each source: how much there is to train on can't be told"
        raise ConfigError("build.max_tokens", rule, fix)
    harmful, harmless = (round(count) for count in counts)
    return (
        harmful + harmless,
        f"{harmful:,} harmful and {harmless:,} harmless rows by the sources' limits, none dropped",
    )


def _rate(
    recipe: Recipe, rows: Sequence[TokenRow], shape: Any, devices: Devices, asked: Asked
) -> tuple[float, tuple[str, ...]]:
    """(operations a second of one device, how that is known)."""
    from forethought.research.planner.footprint import footprint
    from forethought.research.planner.plan import counted, known_shapes, measured_flops_a_second

    if not asked.measure:
        said = f"{asked.tflops:g} TFLOP/s a device at most, {asked.mfu:.0%} of it reached"
        return asked.tflops * 1e12 * asked.mfu, (said,)
    if recipe.model in known_shapes():
        raise ConfigError(f"--measure {recipe.model}", "has shapes here and no weights", "Give --tflops and --mfu")
    if not rows:
        raise ConfigError("--measure", "trains three steps on real rows", "Give --examples as well")
    amount = counted(rows)
    work = footprint(shape, recipe.training, amount.longest, amount.taught_share, devices).flops_a_token
    rate = measured_flops_a_second(recipe.model, rows, recipe.training, work)
    return rate, (f"{rate / 1e12:.3g} TFLOP/s a device, as three steps on this machine gave",)


def _always(devices: Devices) -> tuple[str, ...]:
    from forethought.research.planner.plan import HEADROOM

    return (
        f"frozen weights of {devices.weight_bytes} bytes; {HEADROOM:.0%} of memory left to the framework",
        "the peak is a batch of longest rows; padding, loading and saving take no time, nor do devices wait",
    )


def _show(found: Plan) -> None:
    part = found.footprint
    spread = f"{found.devices.n}" + (", sharded" if found.devices.sharded else "")
    table = Table("", "", show_header=False)
    for name, value in (
        ("model", found.model),
        ("parameters", f"{part.parameters:,}"),
        ("trained parameters", f"{part.trained:,}"),
        ("rows, tokens", f"{found.rows:,}, {found.tokens:,} (all epochs)"),
        ("steps", f"{found.steps:,}"),
        ("devices", spread),
        ("weights, GiB a device", f"{part.weights_gib:.2f}"),
        ("optimiser", f"{part.optimiser_gib:.2f}"),
        ("activations", f"{part.activations_gib:.2f}"),
        ("logits", f"{part.logits_gib:.2f}"),
        ("gradients, after those", f"{part.gradients_gib:.2f}"),
        ("gathered weights", f"{part.gathered_gib:.2f}"),
        ("at most, GiB a device", f"{found.needed_gib:.2f} of {found.device_gib:g}"),
        ("hours", f"{found.hours:.2g} ({found.hours * 3600:,.0f} s)"),
    ):
        table.add_row(name, escape(value))
    console.print(table)
    verdict = "Fits." if found.fits else f"Does not fit. What would: {found.fix}"
    console.print(escape(verdict), style="green" if found.fits else "yellow", highlight=False, soft_wrap=True)
    console.print("Assumed:", highlight=False)
    for assumption in found.assumptions:
        console.print(f"  - {assumption}", highlight=False, markup=False, soft_wrap=True)
