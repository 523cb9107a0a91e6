"""`forethought plan`: what training a recipe takes, before it is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from forethought.cli import options
from forethought.cli.terminal import console, quiet, say

if TYPE_CHECKING:
    from forethought.research.plan import Plan


def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.yaml).")],
    model: Annotated[
        str | None,
        typer.Option(
            help="In the recipe's place: llama-1b, llama-8b, mistral-7b or llama-70b (no weights needed), or a folder."
        ),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Built rows (examples.jsonl), to count. Default: the recipe's token budget.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows, without --examples. Default: the budget, or the sources' limits.")
    ] = None,
    row_tokens: Annotated[
        int | None, typer.Option(min=1, help="Mean tokens of a row, without --examples. Default: of shipped requests.")
    ] = None,
    longest: Annotated[int, typer.Option(min=2, help="Tokens of the longest row, without --examples.")] = 1024,
    devices: Annotated[int, typer.Option(min=1, help="Devices that share the run.")] = 1,
    sharded: Annotated[bool, typer.Option("--sharded", help="Weights divided among devices: FSDP2, ZeRO-3.")] = False,
    device_gib: Annotated[float, typer.Option(min=0.1, help="Memory of a device, in GiB.")] = 80.0,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="Peak of a device, 10^12 operations a second. Default: H100, bfloat16.")
    ] = 989.0,
    mfu: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the peak that training reaches.")] = 0.35,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train three steps here and take the rate from them; with --examples.")
    ] = False,
    json_output: options.Json = False,
) -> None:
    """What training a recipe takes, before it is run: parameters, steps, memory of a device, hours.

    Shapes are enough: no weights are loaded, and nothing is trained unless --measure is given.
    Says whether it fits, and if not, what would make it fit.

    Examples:

      forethought plan recipes/quickstart.yaml

      forethought plan recipes/quickstart.yaml --model llama-70b --devices 8 --sharded
    """
    quiet()
    from forethought.research.plan import PlanSettings, plan_recipe

    settings = PlanSettings(
        model=model, examples=examples, rows=rows, row_tokens=row_tokens, longest=longest, devices=devices,
        sharded=sharded, device_gib=device_gib, tflops=tflops, mfu=mfu, measure=measure,
    )  # fmt: skip
    found = plan_recipe(recipe, settings)
    if json_output:
        console.print_json(found.model_dump_json())
    else:
        _show(found)


def _show(found: Plan) -> None:
    """The plan as a table, whether it fits, and what was assumed."""
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
    say(verdict, "green" if found.fits else "yellow")
    say("Assumed:")
    for assumption in found.assumptions:
        say(f"  - {assumption}")
