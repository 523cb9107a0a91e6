"""`forethought chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape

from forethought.commands.shared import around, quiet
from forethought.commands.terminal import console
from forethought.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from forethought.engine.conversation import Response
    from forethought.engine.settings import Settings


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
    from forethought.engine.conversation import Conversation, Failed
    from forethought.engine.local import LocalModel, as_messages

    if defence is not None and threshold is not None:
        raise ConfigError("--threshold", "is the verdict's; the defence has its own", "Leave out one of the two")
    local = LocalModel.load(model)
    defended = local if defence is None else around(defence, local, local)
    prompts = [prompt] if prompt is not None else _typed()
    for text in prompts:
        if not text.strip():
            continue
        asked = Conversation(messages=as_messages(text, system))
        if defence is None:
            reply = local.reply([asked], max_tokens, threshold=threshold)[0]
        else:
            reply = defended.reply([asked], max_tokens)[0]
        if isinstance(reply, Failed):
            raise ModelError(local.name, f"gave no answer ({reply.cause})", "Ask something else")
        if json_output:
            print(reply.model_dump_json())
        else:
            own = None if defence is not None or local.thinking is None else local.thinking.threshold
            _show_response(reply, local.thinking, own if threshold is None else threshold)


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


def _show_response(response: Response, settings: Settings | None, threshold: float | None) -> None:
    """`threshold`: the verdict's; None where a defence decides by a score of its own."""
    if settings is not None:
        console.print(f"[dim]{escape(response.reasoning_text)}[/dim]", highlight=False)
        for rule_id in response.reasoning.violated if response.reasoning else ():
            console.print(f"[yellow]{rule_id} {settings.policy.rule(rule_id).title}[/yellow]", highlight=False)
        odds = "" if response.log_odds is None else f", log-odds {response.log_odds:.2f}"
        odds += "" if threshold is None or not odds else f" (refuses from {threshold:.2f})"
        console.print(f"[bold]{response.decision}[/bold]{odds}", highlight=False)
        if response.cause:
            console.print(f"[red]{escape(response.cause)}[/red]", highlight=False)
    console.print(escape(response.answer), highlight=False)
