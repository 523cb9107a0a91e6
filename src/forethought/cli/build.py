"""`forethought build`: a refusal dataset in, a verified training set out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say

_SOURCES = "Refusal datasets, in any of the formats read; or one recipe (.yaml)."
_TEACHER = "`rules` (no model), `own` (the dataset's reasoning), or a model as inspect-ai names it: openai/NAME …"


def build(
    sources: Annotated[list[str], typer.Argument(help=_SOURCES)],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the build. Default: runs/NAME. Run again to resume.")
    ] = None,
    harmless: Annotated[list[str] | None, typer.Option(help="A harmless dataset; can be given again.")] = None,
    text_column: options.TextColumn = None,
    teacher: Annotated[str | None, typer.Option(help=_TEACHER)] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of the teacher's OpenAI-compatible server.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Teacher calls at once.")] = None,
    max_cost: options.MaxCost = 1.0,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    yes: options.Yes = False,
    policy: Annotated[Path | None, typer.Option(help="Policy file. Default: the shipped policy.")] = None,
    answers: Annotated[
        str | None, typer.Option(help="Answers of harmless rows: own (the model's), source (the dataset's), none.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Target model, for its own answers.")] = None,
    format: Annotated[str | None, typer.Option(help="think or paper.")] = None,
    detail: Annotated[str | None, typer.Option(help="short (the rules that apply) or full (all of them).")] = None,
    variants: Annotated[float | None, typer.Option(min=0.0, help="Restyled rows beside each original.")] = None,
    twins: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of harmful rows that get a harmless look-alike.")
    ] = None,
    operator_folder: Annotated[Path | None, typer.Option(help="A folder with operators of your own.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="An evaluation set that no row may be near; can be given again.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many requests from each source.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every draw.")] = None,
) -> None:
    """Turns refusal datasets into verified safety reasoning to train on.

    Every request gets an intent, the rules it breaks and a verdict; harmful ones a refusal that
    names the rule, harmless ones an answer. Rows that fail a check, and rows near an evaluation
    set, are dropped and counted. Ends with a folder that `datasets` loads: data, card, report.

    Examples:

      forethought build my_refusals.csv --harmless my_instructions.json

      forethought build my_refusals.csv --teacher openai/gpt-5-mini --max-cost 5

      forethought build my_refusals.csv --teacher openai-api/local/NAME --base-url http://localhost:8000/v1
    """
    quiet()
    from forethought.cli.data import summary_view
    from forethought.pipeline.build import BuildSettings
    from forethought.pipeline.build import build as build_set

    settings = BuildSettings(
        harmless=tuple(harmless or ()), text_column=text_column, teacher=teacher, base_url=base_url,
        concurrency=concurrency, price_in=price_in, price_out=price_out, policy=policy, answers=answers, model=model,
        format=format, detail=detail, variants=variants, twins=twins, operator_folder=operator_folder,
        against=tuple(against or ()), limit=limit, seed=seed,
    )  # fmt: skip
    built = build_set(sources, settings, out=out, progress=Terminal(max_cost=max_cost, yes=yes))
    console.print(summary_view(built.summary.model_copy(update={"samples": ()})))
    say(f"Data: {built.folder}")
    say(f"Page: {built.page}")
    say(f"Look at it: forethought data inspect {built.folder.parent}")
