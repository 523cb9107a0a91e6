"""`forethought plan`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import console, quiet
from forethought.errors import ConfigError, InputError
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.pipeline.recipe import Recipe
    from forethought.train.footprint import Devices
    from forethought.train.plan import Amount, Plan
    from forethought.train.rows import TokenRow


class Asked(Record):
    """What the command was asked for."""

    model: str | None
    """Instead of the recipe's."""
    examples: Path | None
    row_tokens: int
    """Mean tokens of a row, where there are no examples."""
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


_TAUGHT_SHARE = 0.5
"""Of the tokens of a row without examples: about what the rule teacher's rows have."""


def plan(recipe_file: Path, asked: Asked, as_json: bool) -> None:
    """Prints what training a recipe takes; nothing is trained unless a measurement is asked for."""
    quiet()
    from forethought.pipeline.recipe import load_recipe
    from forethought.train.architectures import architecture
    from forethought.train.plan import plan as planned

    recipe = load_recipe(recipe_file)
    if asked.model is not None:
        recipe = recipe.model_copy(update={"model": asked.model})
    shape = architecture(recipe.model)
    rows, said = _rows(recipe, asked) if asked.examples else ([], ())
    amount, counted = (_counted(rows), said) if rows else _assumed(recipe, asked)
    devices = _devices(asked)
    rate, rated = _rate(recipe, rows, shape, devices, asked)
    assumptions = (*counted, *rated, *_always(devices))
    found = planned(recipe.model, shape, recipe.training, amount, devices, asked.device_gib, rate, assumptions)
    if as_json:
        console.print_json(json.dumps(found.model_dump()))
    else:
        _show(found)


def _devices(asked: Asked) -> Devices:
    from forethought.engine.device import has_fast_bfloat16
    from forethought.train.footprint import Devices

    # A measurement is of this machine, whose frozen weights may be float32.
    weight_bytes = 4 if asked.measure and not has_fast_bfloat16() else 2
    return Devices(n=asked.devices, sharded=asked.sharded, weight_bytes=weight_bytes)


def _rows(recipe: Recipe, asked: Asked) -> tuple[list[TokenRow], tuple[str, ...]]:
    """Tokenised examples, and what was assumed for that."""
    from forethought.engine.embedded import EMBEDDED
    from forethought.engine.local import load_tokenizer
    from forethought.policy import load_policy
    from forethought.records import Example, read_jsonl
    from forethought.train.architectures import known_shapes
    from forethought.train.rows import tokenize

    assert asked.examples is not None
    examples = list(read_jsonl(asked.examples, Example))
    if not examples:
        raise InputError(asked.examples, "holds no rows", "Build them first: forethought run")
    # A known shape has no tokenizer of its own here.
    stands_in = recipe.model in known_shapes()
    tokenizer = load_tokenizer(EMBEDDED if stands_in else recipe.model)
    rules, build = load_policy(recipe.policy), recipe.build
    rows = [tokenize(row, tokenizer, rules, build.format, build.detail, recipe.seed) for row in examples]
    said = (f"tokens counted by the tokenizer of {EMBEDDED}: {recipe.model}'s own may need fewer",)
    return rows, said if stands_in else ()


def _counted(rows: Sequence[TokenRow]) -> Amount:
    from forethought.train.plan import Amount
    from forethought.train.rows import IGNORED

    tokens = sum(row.length for row in rows)
    taught = sum(label != IGNORED for row in rows for label in row.labels)
    return Amount(
        rows=len(rows), tokens=tokens, longest=max(row.length for row in rows), taught_share=max(taught, 1) / tokens
    )


def _assumed(recipe: Recipe, asked: Asked) -> tuple[Amount, tuple[str, ...]]:
    from forethought.train.plan import Amount

    tokens = recipe.build.max_tokens
    if tokens is None:
        fix = "Build them, then give --examples RUN/4-build/examples.jsonl"
        raise ConfigError("build.max_tokens", "is not set: how much there is to train on can't be told", fix)
    amount = Amount(
        rows=max(1, tokens // asked.row_tokens), tokens=tokens, longest=asked.longest, taught_share=_TAUGHT_SHARE
    )
    said = f"all of the recipe's token budget; rows of {asked.row_tokens} tokens, the longest {asked.longest}"
    return amount, (f"{said}, half of them taught (count them: --examples)",)


def _rate(
    recipe: Recipe, rows: Sequence[TokenRow], shape: Any, devices: Devices, asked: Asked
) -> tuple[float, tuple[str, ...]]:
    """(operations a second of one device, how that is known)."""
    from forethought.train.architectures import known_shapes
    from forethought.train.duration import measured_flops_a_second
    from forethought.train.footprint import footprint

    if not asked.measure:
        said = f"{asked.tflops:g} TFLOP/s a device at most, {asked.mfu:.0%} of it reached"
        return asked.tflops * 1e12 * asked.mfu, (said,)
    if recipe.model in known_shapes():
        raise ConfigError(f"--measure {recipe.model}", "has shapes here and no weights", "Give --tflops and --mfu")
    if not rows:
        raise ConfigError("--measure", "trains three steps on real rows", "Give --examples as well")
    longest, taught = max(row.length for row in rows), _counted(rows).taught_share
    work = footprint(shape, recipe.training, longest, taught, devices).flops_a_token
    rate = measured_flops_a_second(recipe.model, rows, recipe.training, work)
    return rate, (f"{rate / 1e12:.3g} TFLOP/s a device, as three steps on this machine gave",)


def _always(devices: Devices) -> tuple[str, ...]:
    from forethought.train.plan import HEADROOM

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
        ("gradients and optimiser", f"{part.optimiser_gib:.2f}"),
        ("activations", f"{part.activations_gib:.2f}"),
        ("logits", f"{part.logits_gib:.2f}"),
        ("gathered weights", f"{part.gathered_gib:.2f}"),
        ("in all, GiB a device", f"{found.needed_gib:.2f} of {found.device_gib:g}"),
        ("hours", f"{found.hours:.2g} ({found.hours * 3600:,.0f} s)"),
    ):
        table.add_row(name, escape(value))
    console.print(table)
    verdict = "Fits." if found.fits else f"Does not fit. What would: {found.fix}"
    console.print(escape(verdict), style="green" if found.fits else "yellow", highlight=False, soft_wrap=True)
    console.print("Assumed:", highlight=False)
    for assumption in found.assumptions:
        console.print(f"  - {assumption}", highlight=False, markup=False, soft_wrap=True)
