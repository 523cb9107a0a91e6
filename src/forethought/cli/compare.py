"""`forethought compare`: systems side by side on the same requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, say
from forethought.errors import ConfigError

_SYSTEMS = "NAME=MODEL, twice or more: each name stands in figures and on the page; a model as every command takes one."


def compare(
    systems: Annotated[list[str], typer.Argument(help=_SYSTEMS, metavar="NAME=MODEL ...")],
    suite: options.Suite = None,
    attacks: options.Attacks = None,
    benchmarks: options.Benchmarks = None,
    harmless: options.Harmless = None,
    column: options.BenchmarkColumn = None,
    n: Annotated[int, typer.Option("--n", min=2, help="Requests of each label under an attack.")] = 50,
    max_answer_tokens: options.MaxAnswerTokens = 64,
    seed: Annotated[int, typer.Option(help="Of the sample and the attacks.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/compare-NAMES. Run again to resume.")] = None,
    results: options.RunResults = None,
    show: options.ShowHarmful = False,
) -> None:
    """Puts the same harmful and harmless requests, plain and disguised, to several models, and compares them.

    The last system is set against each other one on the same requests, with intervals and paired tests. Look-alikes and
    short questions are asked besides. Ends with a table, a page and figures. Exits with 1 where more than two in a
    hundred answers of a system could not be judged.

    Examples:

      forethought compare base=embedded defended=runs/quickstart

      forethought compare before=runs/v1 after=runs/v2 --suite paper --benchmark harmbench.csv --n 100
    """
    quiet()
    from forethought.evaluation.compare import compare as put_side_by_side
    from forethought.evaluation.inputs import AttackSettings

    pairs = [system.partition("=") for system in systems]
    for name, equals, model in pairs:
        if not (name and equals and model):
            raise ConfigError(name, "is not NAME=MODEL", "Write, say, base=embedded defended=runs/quickstart")
    settings = AttackSettings(
        suite=suite, attacks=tuple(attacks or ()), benchmarks=tuple(benchmarks or ()), harmless=tuple(harmless or ()),
        columns=options.column_overrides(column), n=n, max_answer_tokens=max_answer_tokens, seed=seed,
    )  # fmt: skip
    terminal = Terminal()
    named = {name: model for name, _, model in pairs}
    found = put_side_by_side(named, settings, out=out, results=results, show_harmful=show, progress=terminal)
    terminal.table(found.figures, found.systems)
    say(f"Page: {found.page}")
    say(f"Figures: {found.results}")
    if found.too_many_unscored:
        say(f"{found.unscored:.1%} of one system's answers could not be judged: see the page", "red")
        raise typer.Exit(1)
