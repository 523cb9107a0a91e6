"""`forethought run`, `build`, `train`, `chat`: from data to a model, and a word with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say, show_table
from forethought.pipeline import BuildSettings

if TYPE_CHECKING:
    from forethought.model import Reply


def run(
    what: Annotated[str, typer.Argument(help="A recipe (.yaml), or a refusal dataset in any of the formats read.")],
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/NAME. Run again to resume.")] = None,
    text_column: options.TextColumn = None,
    model: Annotated[str | None, typer.Option(help="Model to train, instead of the recipe's.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file, instead of the recipe's.")] = None,
    harmless: Annotated[list[str] | None, typer.Option(help="A harmless dataset to add; can be given again.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Where the figures go. Default: results.json in the run folder.")
    ] = None,
    yes: options.Yes = False,
) -> None:
    """From data to a trained model and a report that compares it with the base model.

    Builds safety reasoning from the data, trains, sets the operating point, puts base model,
    safety prompt and trained model to the same attacks on harmful and harmless requests, and
    writes a page. Every stage is kept: a second run takes seconds, and a run that was stopped
    goes on where it was. Exits with 1 where more than two in a hundred answers of a defence
    could not be judged.

    Examples:

      forethought run recipes/quickstart.yaml

      forethought run my_refusals.csv

      forethought run my_refusals.csv --text-column user_msg
    """
    quiet()
    from forethought.pipeline.run import run as run_all

    terminal = Terminal(max_cost=1.0, yes=yes)
    found = run_all(
        what, out=out, text_column=text_column, model=model, policy=policy, harmless=harmless or (), results=results,
        progress=terminal,
    )  # fmt: skip
    say(f"Try it: forethought chat {found.folder}")
    terminal.comparison(found)


@options.spelled_out(BuildSettings)
def build(
    sources: Annotated[
        list[str], typer.Argument(help="Refusal datasets, in any of the formats read; or one recipe (.yaml).")
    ],
    settings: BuildSettings,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the build. Default: runs/NAME. Run again to resume.")
    ] = None,
    max_cost: options.MaxCost = 1.0,
    yes: options.Yes = False,
) -> None:
    """Turns refusal datasets into verified safety reasoning to train on.

    Every request gets an intent, the rules it breaks and a verdict; harmful ones a refusal that
    names the rule, harmless ones an answer. Rows that fail a check, and rows near an evaluation
    set, are dropped and counted. Ends with a folder that `datasets` loads: data, card, report.

    Examples:

      forethought build my_refusals.csv --harmless my_instructions.json

      forethought build my_refusals.csv --teacher openai/gpt-5-mini --max-cost 5

      forethought build my_refusals.csv --teacher openai-api/local/NAME --base-url http://localhost:8000/v1
    """
    quiet()
    from forethought.cli.data import summary_view
    from forethought.pipeline.build import build as build_set

    built = build_set(sources, settings, out=out, progress=Terminal(max_cost=max_cost, yes=yes))
    console.print(summary_view(built.summary.model_copy(update={"samples": ()})))
    say(f"Data: {built.folder}")
    say(f"Page: {built.page}")
    say(f"Look at it: forethought data inspect {built.folder.parent}")


def _list_methods(wanted: bool) -> None:
    """Every method's name and title, whether it thinks, and what it needs besides rows."""
    if not wanted:
        return
    quiet()
    from forethought.training.methods.catalogue import all_methods

    show_table(
        ("method", "", "thinks", "needs besides rows"),
        [
            (
                method.name,
                method.title,
                "yes" if method.thinks else "no",
                "the base model's harmful answers" if method.needs_complied else "",
            )
            for method in all_methods().values()
        ],
        caption="How to choose: docs/train.md",
        box=None,
    )
    raise typer.Exit


def train(
    examples: Annotated[Path, typer.Argument(help="Training rows, as the build stage writes them (examples.jsonl).")],
    out: Annotated[Path, typer.Option(help="Folder for the trained adapter; run again to resume.")],
    method: Annotated[
        str | None,
        typer.Option(help="Which defence to train, see --list-methods. Default: scot_split, or scot as RECIPE says."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose model, policy and training settings to use.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model to train, without a recipe.")] = "embedded",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget of one pass: rows are dropped at random until they fit.")
    ] = None,
    complied: Annotated[
        Path | None,
        typer.Option(help="The base model's own harmful answers from an earlier run; what is missing is added."),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Share of families, of both terms, to leave out and measure by; training stops when nothing is gained "
            "on them, as the recipe's early_stop says, and the best weights are kept.",
        ),
    ] = None,
    packing: Annotated[
        bool | None, typer.Option(help="Rows of a batch end to end instead of padded. Default: as the recipe says.")
    ] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(help="Where losses are sent besides the terminal: tensorboard, wandb, mlflow; may be repeated."),
    ] = None,
    merge: Annotated[bool, typer.Option(help="Also write a merged model that needs no PEFT, into OUT/merged.")] = False,
    list_methods: Annotated[
        bool, typer.Option("--list-methods", is_eager=True, callback=_list_methods, help="Show all methods and exit.")
    ] = False,
) -> None:
    """Trains a model on built rows: LoRA or full, by any method, with checkpoints and exact resume.

    Some methods set a refusal against the base model's own compliance with the same harmful
    request. The base model is asked first, and the answers stay in OUT/complied.jsonl.

    Examples:

      forethought train runs/quickstart/4-build/examples.jsonl --out runs/refusal --method refusal

      forethought train examples.jsonl --out runs/scot --held-out 0.1 --tracker tensorboard

      forethought train examples.jsonl --out runs/rr --method circuit_breaker --max-tokens 60000
    """
    quiet()
    from forethought.pipeline.training import train as train_model
    from forethought.training.config import is_first

    found = train_model(
        examples, out, method=method, model=model, recipe=recipe, max_tokens=max_tokens, complied=complied,
        held_out=held_out, packing=packing, trackers=tracker or (), merge=merge, progress=Terminal(),
    )  # fmt: skip
    if not is_first():
        return
    counts = found.counts
    taught = f"{counts['rows']:.0f} rows, {counts['tokens']:.0f} tokens"
    say(f"Trained on {taught} by {found.method}: {out}")
    if "kept_step" in counts:
        losses = f"refusal {counts['held_out_refusal']:.3f}, benign {counts['held_out_benign']:.3f} nats a token"
        say(f"Kept step {counts['kept_step']:.0f}: held-out loss {losses}")
    if found.merged is not None:
        say(f"Merged: {found.merged}")


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
