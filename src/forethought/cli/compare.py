"""`forethought compare`: the same requests, put to several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet
from forethought.errors import ConfigError
from forethought.evaluation.inputs import AttackSettings


@options.spelled_out(
    AttackSettings, "suite", "attacks", "benchmarks", "harmless", "columns", "harmless_columns", "n",
    "max_answer_tokens", "seed", **options.SPELLED | {"n": {"decls": ("--limit",), "min": 2}},
)  # fmt: skip
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            help="NAME=MODEL, twice or more: each name stands in figures and on the page; a model as every command"
            " takes one.",
            metavar="NAME=MODEL ...",
        ),
    ],
    settings: AttackSettings,
    questions: Annotated[
        list[str] | None,
        typer.Option(help="A file of questions as `forethought capability` reads them; what is refused is wrong."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/compare-NAMES. Run again to resume.")] = None,
    results: options.RunResults = None,
    show: options.ShowHarmful = False,
    on: options.On = None,
) -> None:
    """Puts the same harmful and harmless requests, plain and disguised, to several models, and compares them.

    The last system is set against each other one on the same requests, with intervals and paired tests. Look-alikes and
    short questions are asked besides. Ends with a table, a page and figures. Exits with 1 where more than two in a
    hundred answers of a system could not be judged.

    Examples:

      forethought compare base=embedded defended=runs/quickstart

      forethought compare before=runs/v1 after=runs/v2 --suite paper --limit 100
    """
    quiet()
    from forethought.evaluation.compare import compare as put_side_by_side

    pairs = [system.partition("=") for system in systems]
    for name, equals, model in pairs:
        if not (name and equals and model):
            raise ConfigError(name, "is not NAME=MODEL", "Write, say, base=embedded defended=runs/quickstart")
    terminal = Terminal()
    named = {name: model for name, _, model in pairs}
    found = put_side_by_side(
        named,
        settings,
        out=out,
        results=results,
        questions=questions or (),
        show_harmful=show,
        progress=terminal,
        on=on,
    )
    terminal.comparison(found)
