"""What `forethought data` does with built sets, operators and models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import ModelArgument, SourceArgument
from forethought.commands import dataset as dataset_command
from forethought.commands import inspect as inspect_command

BuildArgument = Annotated[Path, typer.Argument(help="Folder of `forethought build` or `run`, or its dataset folder.")]
ShowHarmful = Annotated[bool, typer.Option("--show-harmful", help="Print harmful text unredacted.")]


def inspect(
    build: BuildArgument,
    page: Annotated[Path | None, typer.Option(help="Also write it as a page: one file, no network needed.")] = None,
    show: ShowHarmful = False,
) -> None:
    """Shows a built set: counts by rule, style and source, lengths, what was dropped and why, samples (redacted)."""
    dataset_command.inspect(build, page, show)


def overlaps(
    source: SourceArgument,
    evaluation: Annotated[str, typer.Argument(help="The set to compare with, such as an evaluation set.")],
    show: ShowHarmful = False,
) -> None:
    """Shows which requests of one set stand in another, as they are or nearly so."""
    inspect_command.overlaps(source, evaluation, show)


def operators(
    folder: Annotated[Path | None, typer.Option(help="A folder with operators of your own, listed with ours.")] = None,
) -> None:
    """Checks and lists the styles that requests are rewritten in, each with an example."""
    dataset_command.operators(folder)


def export(
    build: BuildArgument,
    kind: Annotated[str, typer.Option("--format", help="trl, messages, sharegpt, alpaca or parquet.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    partial: Annotated[
        bool, typer.Option("--include-partial", help="Also rows without a whole answer, which teach the thought.")
    ] = False,
) -> None:
    """Writes a built set in the format of another trainer."""
    dataset_command.export(build, kind, out, partial)


def push(
    build: BuildArgument,
    name: Annotated[str, typer.Argument(help="Dataset repository: OWNER/NAME.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public; else it is private.")] = False,
) -> None:
    """Uploads a built set with its card to a hub. Nothing is sent anywhere without this command."""
    dataset_command.push(build, name, public)


def mine(
    model: ModelArgument,
    source: SourceArgument,
    out: Annotated[Path, typer.Option(help="File for the requests that were refused. Run again to resume.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many requests.")] = None,
) -> None:
    """Finds harmless requests that a model refuses, to be trained on as harmless: `forethought build --harmless OUT`.

    Mine from data that you train on, never from a benchmark that you test with.
    """
    dataset_command.mine(model, source, out, limit)
