"""`forethought data`: everything about data sets. Without a subcommand it reads a source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forethought.cli.options import SourceArgument, TextColumn
from forethought.commands import data as data_command


class _ReadByDefault(TyperGroup):
    """`forethought data FILE` is `forethought data read FILE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["read", *args]
        return super().resolve_command(ctx, args)


data_app = typer.Typer(
    name="data",
    cls=_ReadByDefault,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Reads any dataset, and shows how it was understood: `forethought data FILE`.",
)


@data_app.command()
def read(
    source: SourceArgument,
    text_column: TextColumn = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NOUN=NAME",
            help="Column for one of text, messages, history, system, answer, category, label, context, where the"
            " guess is wrong; can be given again.",
        ),
    ] = None,
    harmless: Annotated[
        bool, typer.Option("--harmless", help="The set holds harmless requests, not harmful ones.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many requests, drawn by content hash.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave malformed rows out and count them; else the first is an error.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the requests, with their rules, as JSON lines.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy whose rules to assign. Default: the shipped policy.")
    ] = None,
    show: Annotated[bool, typer.Option("--show-harmful", help="Print samples unredacted.")] = False,
) -> None:
    """Reads any dataset as a stream, and shows how its columns were understood, its counts by rule, and samples.

    Harmful samples are redacted. A label column in the set wins over --harmless, row by row.
    """
    data_command.read(source, text_column, column or [], harmless, limit, skip_bad, out, policy, show)
