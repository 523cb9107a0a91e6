"""`forethought inside`, to be mounted by the root of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import TextColumn
from forethought.commands import inside as inside_command


def inside(
    model: Annotated[str, typer.Argument(help="A trained folder of a model that thinks.")],
    requests: Annotated[
        str, typer.Option(help="`shipped`, or a labelled set of yours, split by family: half of it fits the probes.")
    ] = "shipped",
    style: Annotated[
        list[str] | None,
        typer.Option(help="An attack to disguise requests with; can be repeated. Default: readable, unseen ones."),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many held-out requests of each kind.")] = 50,
    fit_limit: Annotated[int, typer.Option(min=2, help="At most so many of each kind to fit probes on.")] = 200,
    text_column: TextColumn = None,
    seed: Annotated[int, typer.Option(help="Of the sample and of who lends an intent.")] = 0,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Don't redact harmful text on the page.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of figures and page. Default: runs/inside/NAME.")] = None,
) -> None:
    """What a model's verdict rests on: its thought, or what it knew before.

    Four questions. Does the verdict follow the stated intent, when another request's is written
    into the thought? Do disguised requests fail in the intent, or in the verdict after a right
    intent? How much of the verdict can a linear probe decode before the first word? And what is
    the verdict worth with the model's own thought, without one, and with another's?

    Writes inside.json and inside.html.

    Examples:

      forethought inside runs/quickstart/5-train

      forethought inside runs/quickstart/5-train --style role_play --style style_json --limit 100
    """
    inside_command.inside(model, requests, style or [], limit, fit_limit, text_column, seed, show_harmful, out)
