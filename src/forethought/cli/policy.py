"""`forethought policy`: a policy's rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli.terminal import say, show_table

if TYPE_CHECKING:
    from forethought.policy import Policy


def policy(
    file: Annotated[
        Path | None,
        typer.Argument(help="A policy file, or the name of one that ships. Left out: the default, and which ship."),
    ] = None,
) -> None:
    """Checks a policy file and shows its rules."""
    from forethought.policy import load_policy, shipped_policies

    show_rules(load_policy(file))
    if file is None:
        say(f"Policies that ship: {', '.join(shipped_policies())}.")


def show_rules(policy: Policy) -> None:
    """A policy's rules as a table."""
    title = f"{policy.name} {policy.version}, hash {policy.hash}"
    rows = [(rule.id, rule.title, rule.description) for rule in policy.rules]
    show_table(("id", "title", "what it forbids"), rows, title=title)
