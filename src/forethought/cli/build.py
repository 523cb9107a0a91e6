"""`forethought build`: refusal datasets to verified safety reasoning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say
from forethought.pipeline import BuildSettings


@options.spelled_out(BuildSettings, columns=options.SPELLED["columns"])
def build(
    sources: Annotated[
        list[str], typer.Argument(help="Refusal datasets, in any of the formats read; or one recipe (.yaml).")
    ],
    settings: BuildSettings,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the build. Default: runs/NAME. Run again to resume.")
    ] = None,
    on: options.On = None,
    parquet: Annotated[
        str | None, typer.Option(help="An address, such as s3://BUCKET/FOLDER, to which the Parquet files go as well.")
    ] = None,
    max_cost: options.MaxCost = 1.0,
    yes: options.Yes = False,
) -> None:
    """Turns refusal datasets into verified safety reasoning to train on.

    Every request gets an intent, the rules it breaks and a verdict; harmful ones a refusal that
    names the rule, harmless ones an answer. Rows that fail a check, and rows near an evaluation
    set, are dropped and counted. Ends with a folder that `datasets` loads: data, card, report.

    Examples:

      forethought build my_refusals.csv --harmless my_instructions.json

      forethought build my_refusals.csv --teacher openai/gpt-5-mini --max-cost 5

      forethought build my_refusals.csv --teacher ollama/NAME

      forethought build prompts.parquet --on ray://HOST:PORT
    """
    quiet()
    from forethought.cli.data import summary_view
    from forethought.pipeline.build import build as build_set

    built = build_set(sources, settings, out=out, on=on, parquet=parquet, progress=Terminal(max_cost=max_cost, yes=yes))
    console.print(summary_view(built.summary.model_copy(update={"samples": ()})))
    say(f"Data: {built.folder}")
    say(f"Page: {built.page}")
    say(f"Look at it: forethought data inspect {built.folder.parent}")
