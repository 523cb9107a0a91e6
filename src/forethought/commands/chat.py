"""`forethought chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape

from forethought.commands.shared import quiet
from forethought.commands.terminal import console

if TYPE_CHECKING:
    from forethought.model import Reply


def chat(
    model: str,
    prompt: str | None,
    system: str | None,
    threshold: float | None,
    max_tokens: int,
    json_output: bool,
    defence: str | None = None,
) -> None:
    """Answers one prompt, or each line that is typed. Raises ModelError for a prompt that gets no answer."""
    quiet()
    from forethought.model import load

    opened = load(model, defence=defence)
    for text in [prompt] if prompt is not None else _typed():
        if not text.strip():
            continue
        reply = opened.reply(text, max_tokens, system, threshold)
        if json_output:
            print(reply.model_dump_json())
        else:
            _show(reply)


def _typed() -> Iterator[str]:
    """Prompts from the terminal until an empty line or the end of input."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip() and sys.stdin.isatty():
            return
        yield line


def _show(reply: Reply) -> None:
    """The thought, the rules, the verdict with its probability, and the answer."""
    if reply.thought:
        console.print(f"[dim]{escape(reply.thought)}[/dim]", highlight=False)
    for rule in reply.rules:
        console.print(f"[yellow]{rule.id} {escape(rule.title)}[/yellow]", highlight=False)
    if reply.verdict is not None:
        odds = "" if reply.probability is None else f", probability of refusing {reply.probability:.2f}"
        odds += "" if reply.threshold is None or not odds else f" (refuses from {reply.threshold:.2f})"
        console.print(f"[bold]{reply.verdict}[/bold]{odds}", highlight=False)
    if reply.cause:
        console.print(f"[red]{escape(reply.cause)}[/red]", highlight=False)
    console.print(escape(reply.answer), highlight=False)
