"""`forethought policy`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from forethought.commands.terminal import console


def show_policy(file: Path | None) -> None:
    """Checks and prints a policy."""
    from forethought.policy import load_policy, shipped_policies

    rules = load_policy(file)
    table = Table("id", "title", "what it forbids", title=f"{rules.name} {rules.version}, hash {rules.hash}")
    for rule in rules.rules:
        table.add_row(rule.id, rule.title, rule.description)
    console.print(table)
    if file is None:
        console.print(f"Policies that ship: {', '.join(shipped_policies())}.", highlight=False)
