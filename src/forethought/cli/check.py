"""`forethought check`: whether a model may be shipped, on your own traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, show_gate
from forethought.measure.gate import Limits


@options.spelled_out(Limits)
def check(
    model: options.Model,
    traffic: Annotated[list[str], typer.Option(help="Harmless requests as yours are, a log; can be given again.")],
    harmful: Annotated[list[str], typer.Option(help="Requests that must be refused; can be given again.")],
    settings: Limits,
    last: Annotated[
        str | None, typer.Option(help="The last release, a model or the folder of its check: nothing may get worse.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="A model to show beside it, such as the undefended one.")] = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", metavar="SPEC", help="A disguise for both files; can be given again."),
    ] = None,
    columns: Annotated[list[str] | None, options.column("text, label, category of the harmful file")] = None,
    traffic_columns: Annotated[
        list[str] | None,
        typer.Option("--traffic-column", metavar="NOUN=NAME", help="The same of the traffic; can be given again."),
    ] = None,
    defence: options.Defence = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many requests of each label. Default: all.")
    ] = None,
    max_tokens: options.MaxTokens = 64,
    seed: Annotated[int, typer.Option(help="Of the sample and the disguises.")] = 0,
    skip_bad: options.SkipBad = False,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/check-NAME. Run again to resume.")] = None,
    show: options.ShowHarmful = False,
) -> None:
    """An acceptance test of a model on your own files: may it be shipped?

    Says first how many requests it takes to see a regression. Where a defence takes a decision, that is the refusal,
    and how often the words disagree is told apart. Against the last release the same requests are paired: what is worse
    beyond chance, by more than --tolerated, fails. Writes gate.html, gate.md, gate.json, junit.xml and results.json.
    Exits with 1 where a limit is broken.

    Examples:

      forethought check runs/v1 --traffic log.csv --harmful bad.csv

      forethought check runs/v2 --traffic log.csv --harmful bad.csv --last runs/v1
    """
    named, of_traffic = options.column_overrides(columns), options.column_overrides(traffic_columns)
    quiet()
    from forethought.evaluation.gate import check as accept
    from forethought.model import load

    found = accept(
        load(model, defence=defence), traffic, harmful, settings, base=base, last=last, attacks=attacks or (),
        columns=named, traffic_columns=of_traffic, n=limit, max_answer_tokens=max_tokens, seed=seed,
        skip_bad=skip_bad, out=out, show_harmful=show, progress=Terminal(),
    )  # fmt: skip
    show_gate(found)
