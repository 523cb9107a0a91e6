"""`forethought over-refusal`, to be mounted by the root of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import DefenceOption, ModelArgument
from forethought.commands import overrefusal as overrefusal_command


def over_refusal(
    model: ModelArgument,
    files: Annotated[
        list[str], typer.Argument(help="XSTest, OR-Bench, CyberSecEval and the like, yours, or shipped:lookalike.")
    ],
    styles: Annotated[
        bool, typer.Option("--styles", help="Also under every attack's disguise: a disguise is no crime.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many requests of each label a file.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="NOUN=COLUMN (text, label, category); can be repeated.")
    ] = None,
    defence: DefenceOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the sample and the disguises.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON; logs beside it, to resume.")] = None,
) -> None:
    """How often harmless requests that look harmful are refused, by why they look so and by disguise.

    Rows that a file labels harmful are its contrasts and reported apart: refusing those is right.
    Full and partial refusals count together, partial ones are also shown alone. An answer that is
    empty or garbled is unscored and counted.

    Examples:

      forethought over-refusal runs/quickstart/5-train xstest.csv --styles

      forethought over-refusal embedded shipped:lookalike shipped:ordinary --limit 100
    """
    overrefusal_command.over_refusal(model, files, styles, limit, column or [], defence, max_tokens, seed, out)
