"""`forethought plan`, to be mounted by the root of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.commands import plan as plan_command


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
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What training a recipe takes, before it is run: parameters, steps, memory of a device, hours.

    Shapes are enough: no weights are loaded, and nothing is trained unless --measure is given.
    Says whether it fits, and if not, what would make it fit.

    Examples:

      forethought plan recipes/quickstart.yaml

      forethought plan recipes/quickstart.yaml --model llama-70b --devices 8 --sharded
    """
    asked = plan_command.Asked(
        model=model,
        examples=examples,
        rows=rows,
        row_tokens=row_tokens,
        longest=longest,
        devices=devices,
        sharded=sharded,
        device_gib=device_gib,
        tflops=tflops,
        mfu=mfu,
        measure=measure,
    )
    plan_command.plan(recipe, asked, json_output)
