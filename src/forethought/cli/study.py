"""`forethought study`: reasoning against the other defences, on the study's requests or on yours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.sweep import Sweeping, run_and_tell
from forethought.cli.terminal import quiet

Sets = list[str] | None


@options.spelled_out(Sweeping)
def study(
    settings: Sweeping,
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
    quiet()
    from forethought.research.config import load_sweep
    from forethought.research.sweep import asked_otherwise

    chosen = asked_otherwise(
        load_sweep(file), benchmark or (), benchmark_harmless or (), benchmark_lookalikes or (), style or (), templates
    )
    # What somebody else asked stands beside the study's own.
    run_and_tell(chosen, settings, report_in=f"asked-{chosen.evaluate.asks}" if chosen.evaluate.asks else "")
