"""`forethought benchmark`, to be mounted by the root of the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from forethought.commands import benchmark as benchmark_command


def benchmark(
    file: Annotated[
        str | None,
        typer.Argument(help="File, folder, glob, wheel::member, pkg:NAME/path, hub:NAME@split. Left out: the layouts."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="A layout's name or YAML file, where it isn't recognised by its columns.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NOUN=NAME", help="Instead of a layout: column of text, messages, category, label, ..."),
    ] = None,
    harmful: Annotated[
        bool | None,
        typer.Option("--harmful/--harmless", help="Label of rows of which the benchmark says nothing."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave malformed rows out and name them; else the first is an error.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Draw so many, strata in proportion.")] = None,
    by: Annotated[str, typer.Option(help="Strata: category, attack or a tag; several joined by commas.")] = "category",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    show: Annotated[bool, typer.Option("--show-harmful", help="Print samples unredacted.")] = False,
) -> None:
    """Shows how a benchmark is understood: its layout, what is counted in which group, a few redacted rows.

    Examples:

      forethought benchmark harmbench_behaviors_text_all.csv

      forethought benchmark my_benchmark.csv --column text=ask --column category=area --harmful
    """
    if file is None:
        benchmark_command.show_layouts()
    else:
        benchmark_command.benchmark(file, layout, column or [], harmful, skip_bad, limit, by, seed, show)
