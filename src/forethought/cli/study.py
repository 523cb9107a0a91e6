"""`forethought study`, to be mounted by the root of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import KeptOption
from forethought.commands import study as study_command
from forethought.commands.sweep import Choice

Sets = list[str] | None


def study(
    file: Annotated[Path, typer.Argument(help="The study, a sweep (.yaml).")] = Path("recipes/study.yaml"),
    benchmark: Annotated[
        Sets,
        typer.Option(help="Requests to put to the defences instead: with labels, or harmful ones. Again for more."),
    ] = None,
    benchmark_harmless: Annotated[
        Sets, typer.Option(help="Harmless requests beside --benchmark, where that has no labels.")
    ] = None,
    benchmark_lookalikes: Annotated[
        Sets, typer.Option(help="Harmless requests that look harmful, as the safe half of XSTest.")
    ] = None,
    style: Annotated[
        Sets,
        typer.Option(help="Styles instead of the study's, as `forethought attack` names them. Again for more."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="A file of templates of yours, each of which is a style, as [cyan]{request}[/].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/NAME. Run again to resume.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where the figures go. Default: beside the page.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the cells and exit; nothing is run.")] = False,
    only: Annotated[Sets, typer.Option(help="Do the cells of this defence alone; can be given again.")] = None,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Report the defences that are done; the others are listed as missing.")
    ] = False,
    kept: KeptOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask what a teacher may cost.")] = False,
) -> None:
    """Compares reasoning with the other defences, on the study's requests or on yours.

    With --benchmark, --style or --templates nothing is trained otherwise: the defences of the study, trained
    where they are not yet, are put to your requests or styles. Requests near a training row are
    left out and counted. Styles near a trained one are reported apart.

    Examples:

      forethought study

      forethought study --so-far --kept results/study

      forethought study --benchmark my_requests.csv

      forethought study --benchmark harmful.txt --benchmark-harmless harmless.txt
    """
    asked = study_command.Asked(
        benchmark or (), benchmark_harmless or (), benchmark_lookalikes or (), style or (), templates
    )
    choice = Choice(out, results, plan, only or (), so_far, kept, yes)
    raise typer.Exit(study_command.study(file, asked, choice))
