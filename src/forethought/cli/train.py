"""`forethought train`: a model on built rows, by any method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.terminal import Terminal, quiet, say, show_table


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
        int | None,
        typer.Option("--token-budget", min=1, help="Tokens of one pass: rows are dropped at random until they fit."),
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

      forethought train examples.jsonl --out runs/refusal --method refusal

      forethought train examples.jsonl --out runs/scot --held-out 0.1

      forethought train examples.jsonl --out runs/rr --token-budget 60000
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
