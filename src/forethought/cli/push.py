"""`forethought push`: a trained model or a built set, with its card, to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.terminal import quiet, say


def push(
    what: Annotated[Path, typer.Argument(help="A run, a trained folder, or the folder of a built set.")],
    name: Annotated[str, typer.Argument(help="Repository: OWNER/NAME.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public; else it is private.")] = False,
) -> None:
    """Uploads a model or a built set with its card to the Hugging Face hub. Nothing is sent without this command.

    Of a model: weights, tokenizer, settings, what stands around it, results and card; no request, thought or answer.
    """
    quiet()
    from forethought.pipeline.publish import push as upload

    say(upload(what, name, private=not public))
