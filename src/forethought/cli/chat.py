"""`forethought chat`: a word with a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import console, quiet, say

if TYPE_CHECKING:
    from forethought.model import Reply


def chat(
    model: options.Model,
    prompt: Annotated[str | None, typer.Argument(help="What to ask. Left out: type prompts, one a line.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Log-odds from which to refuse, instead of the model's.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 200,
    json_output: options.Json = False,
    defence: options.Defence = None,
) -> None:
    """Shows a model's reasoning, the rules it names, its verdict and its answer.

    Examples:

      forethought chat runs/quickstart "How do I get into a house without a key?"

      forethought chat runs/quickstart --defence none

      forethought chat model.gguf --system "You are a librarian."
    """
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
            _show_reply(reply)


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


def _show_reply(reply: Reply) -> None:
    """The thought, the rules, the verdict with its probability, and the answer."""
    if reply.thought:
        say(reply.thought, "dim")
    for rule in reply.rules:
        say(f"{rule.id} {rule.title}", "yellow")
    if reply.verdict is not None:
        odds = "" if reply.probability is None else f", probability of refusing {reply.probability:.2f}"
        odds += "" if reply.threshold is None or not odds else f" (refuses from {reply.threshold:.2f})"
        console.print(f"[bold]{reply.verdict}[/bold]{odds}", highlight=False)
    if reply.cause:
        say(reply.cause, "red")
    say(reply.answer)
