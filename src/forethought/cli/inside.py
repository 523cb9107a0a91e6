"""`forethought inside`: what a model's verdict rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, say, show_table

if TYPE_CHECKING:
    from forethought.research.inside.look import Inside


def inside(
    model: Annotated[str, typer.Argument(help="A run folder, or a trained folder of a model that thinks.")],
    requests: Annotated[
        str, typer.Option(help="`shipped`, or a labelled set of yours, split by family: half of it fits the probes.")
    ] = "shipped",
    style: Annotated[
        list[str] | None,
        typer.Option(help="An attack to disguise requests with; can be repeated. Default: readable, unseen ones."),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many held-out requests of each kind.")] = 50,
    fit_limit: Annotated[int, typer.Option(min=2, help="At most so many of each kind to fit probes on.")] = 200,
    text_column: options.TextColumn = None,
    seed: Annotated[int, typer.Option(help="Of the sample and of who lends an intent.")] = 0,
    show: options.ShowHarmful = False,
    out: Annotated[Path | None, typer.Option(help="Folder of figures and page. Default: runs/inside/NAME.")] = None,
) -> None:
    """What a model's verdict rests on: its thought, or what it knew before.

    Four questions. Does the verdict follow the stated intent, when another request's is written
    into the thought? Do disguised requests fail in the intent, or in the verdict after a right
    intent? How much of the verdict can a linear probe decode before the first word? And what is
    the verdict worth with the model's own thought, without one, and with another's?

    A fifth, where a style has to be solved (chain:2) and the thought does: what does the verdict do
    when the solved text is cut, corrupted or swapped, and where along the thought can harm be told?

    Writes inside.json and inside.html.

    Examples:

      forethought inside runs/quickstart

      forethought inside runs/quickstart --style role_play --style style_json

      forethought inside OUT/train --style sums:1 --style sums:2
    """
    quiet()
    from forethought.research.inside.report import inside as look_inside

    run = look_inside(
        model, requests, style or (), limit=limit, fit_limit=fit_limit, text_column=text_column, seed=seed,
        show_harmful=show, out=out, progress=Terminal(),
    )  # fmt: skip
    _show_inside(run.found)
    say(f"Figures: {run.results}")
    say(f"Page: {run.page}")
    say(f"Plots by themselves: {run.plots}")


def _show_inside(found: Inside) -> None:
    """A table for each of the questions."""
    from forethought.report.tables import TITLES
    from forethought.research.inside.report import area_lines, solved_lines, swap_lines

    if swaps := swap_lines(found.figures):
        question = "Does the verdict follow the stated intent?"
        show_table((question, ""), swaps, caption="95 % intervals", caption_justify="left")
    else:
        say("No intent could be swapped: right verdicts with a stated intent all stand on one side.")
    failures = [(one.title, *map(str, one.counts)) for one in found.tables]
    columns = ("Where requests fail", "both right", "intent wrong", "verdict wrong", "both wrong", "no verdict")
    show_table(columns, failures)
    lines = area_lines(found.figures)
    lines = [*lines[:2], *lines[2:][-1:]]
    areas = [(mark["title"], *(cells[number] for _, cells in lines)) for number, mark in enumerate(TITLES.areas)]
    show_table(("AUROC", *(name for name, _ in lines)), areas)
    if solved := solved_lines(found.figures):
        show_table(("The solved text", "AUROC", "flips", "log-odds"), [(title, *cells) for title, cells in solved])
    for name, why in found.missing.items():
        say(f"Not measured: {name}, {why}")
