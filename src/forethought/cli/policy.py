"""`forethought policy`: checks a policy and shows its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from forethought.cli.terminal import console, say


def policy(
    file: Annotated[
        Path | None,
        typer.Argument(help="A policy file, or the name of one that ships. Left out: the default, and which ship."),
    ] = None,
) -> None:
    """Checks a policy file and shows its rules."""
    from forethought.policy import load_policy, shipped_policies

    rules = load_policy(file)
    table = Table("id", "title", "what it forbids", title=f"{rules.name} {rules.version}, hash {rules.hash}")
    for rule in rules.rules:
        table.add_row(rule.id, rule.title, rule.description)
    console.print(table)
    if file is None:
        say(f"Policies that ship: {', '.join(shipped_policies())}.")
