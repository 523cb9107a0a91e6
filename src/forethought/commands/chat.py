"""`forethought chat`."""

from __future__ import annotations

import sys
from typing import Any

from rich.markup import escape

from forethought.commands.shared import console, quiet


def chat(
    model: str, prompt: str | None, system: str | None, threshold: float | None, max_tokens: int, json_output: bool
) -> None:
    """Answers one prompt, or each line that is typed."""
    quiet()
    from forethought.engine.local import LocalModel, as_messages

    local = LocalModel.load(model)
    prompts = [prompt] if prompt is not None else _typed()
    for text in prompts:
        if not text.strip():
            continue
        response = local.respond([as_messages(text, system)], max_tokens, threshold=threshold)[0]
        if json_output:
            print(response.model_dump_json())
        else:
            _show_response(response, local.thinking)


def _typed() -> Any:
    """Prompts from the terminal until an empty line or the end of input."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip() and sys.stdin.isatty():
            return
        yield line


def _show_response(response: Any, settings: Any) -> None:
    if settings is not None:
        console.print(f"[dim]{escape(response.reasoning_text)}[/dim]", highlight=False)
        for rule_id in response.reasoning.violated if response.reasoning else ():
            console.print(f"[yellow]{rule_id} {settings.policy.rule(rule_id).title}[/yellow]", highlight=False)
        odds = (
            ""
            if response.log_odds is None
            else f", log-odds {response.log_odds:.2f} (refuses from {settings.threshold:.2f})"
        )
        console.print(f"[bold]{response.decision}[/bold]{odds}", highlight=False)
        if response.cause:
            console.print(f"[red]{escape(response.cause)}[/red]", highlight=False)
    console.print(escape(response.answer), highlight=False)
