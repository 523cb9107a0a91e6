"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A run folder, a trained folder, a model folder, a .gguf file, a hub name, `embedded`, or a "
        "server's model: http://HOST:PORT/v1#NAME or PROVIDER/NAME."
    ),
]
DefenceOption = Annotated[
    str | None,
    typer.Option(
        help="A defence at inference around the model (docs/defences.md). Default: a run's own; none: without."
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="Column that holds the requests, where the guess is wrong.")]
SourceArgument = Annotated[
    str, typer.Argument(help="File, folder, glob, wheel::member, pkg:NAME/path, hub:NAME, shipped:SET.")
]
KeptOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of another run of the same file, or of its committed log: cells that are not done here are taken "
        "from there."
    ),
]
