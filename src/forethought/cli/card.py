"""`forethought card`: what a trained model is, and what was measured of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.terminal import quiet, say


def card(
    model: Annotated[Path, typer.Argument(help="A run or a trained folder.")],
    results: Annotated[
        list[Path] | None, typer.Option(help="Results of an attack or a check of this model; can be given again.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: MODEL/card.md.")] = None,
) -> None:
    """Writes a model card in the hub's format from the model's own results: nothing that was not measured.

    Intended use, policy, data, figures with intervals, limits. `forethought push` takes it along.
    """
    quiet()
    from forethought.report.card import card as made

    file = out or model / "card.md"
    made(model, results or ()).save(file)
    say(f"Card: {file}")
