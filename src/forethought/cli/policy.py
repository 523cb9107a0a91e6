"""`forethought policy`: a policy's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.terminal import say, show_table


def policy(
    file: Annotated[
        Path | None,
        typer.Argument(help="A policy file, or the name of one that ships. Left out: the default, and which ship."),
    ] = None,
) -> None:
    """Checks a policy file and shows its rules."""
    from forethought.policy import load_policy, shipped_policies

    rules = load_policy(file)
    title = f"{rules.name} {rules.version}, hash {rules.hash}"
    rows = [(rule.id, rule.title, rule.description) for rule in rules.rules]
    show_table(("id", "title", "what it forbids"), rows, title=title)
    if file is None:
        say(f"Policies that ship: {', '.join(shipped_policies())}.")
