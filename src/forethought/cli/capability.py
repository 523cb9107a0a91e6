"""`forethought capability`: what a model can still do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say

if TYPE_CHECKING:
    from forethought.evaluation.capability import CapabilityRun


def capability(
    model: options.Model,
    files: Annotated[
        list[str], typer.Argument(help="Question files: MMLU, GSM8K, ARC, PIQA, IFEval, Alpaca and the like, or yours.")
    ],
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many questions a file, drawn by seed, strata kept.")
    ] = None,
    form: Annotated[
        Literal["loglikelihood", "generate"],
        typer.Option(help="Compare likelihoods of the options, or let the model write and extract the answer."),
    ] = "loglikelihood",
    choices: Annotated[
        Literal["text", "letter"],
        typer.Option(help="Score each option's text, or the letter of an option that the prompt lists."),
    ] = "text",
    prompt: Annotated[
        Literal["plain", "chat"] | None,
        typer.Option(help="Default: chat for a trained model (and its base), else plain."),
    ] = None,
    shots: Annotated[int, typer.Option(min=0, help="Worked examples before each question.")] = 0,
    base: Annotated[
        str | None, typer.Option(help="The base to compare with, for a model that was merged or fully trained.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NOUN=NAME", help="Column of question, options, answer, context, group; can be repeated."),
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="A model that compares open answers, by inspect-ai name; with --form generate.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest written answer. Default: by kind.")] = None,
    think_budget: Annotated[
        int | None, typer.Option(min=1, help="Tokens of thought before a verdict is asked for. Default: the model's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows scored at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the sample and the worked examples.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the figures as JSON. Items stand beside it, to resume.")
    ] = None,
) -> None:
    """What a model can still do, through lm-eval, from local files, against chance and against its base.

    A model that thinks gets the same prompts as its base; its thought is taken out before anything
    is scored, and an item that its verdict refuses counts as wrong. Differences are paired on the
    same items. A set on which the base is no better than chance can't show a loss, and is marked so.

    Examples:

      forethought capability embedded arc.jsonl piqa.jsonl --limit 200

      forethought capability runs/quickstart gsm8k.jsonl --form generate --out results.json
    """
    columns = options.column_overrides(column)
    quiet()
    from forethought.evaluation.capability import capability as measure
    from forethought.measure.capability import CapabilityConfig

    config = CapabilityConfig(
        form=form, choices=choices, prompt=prompt, shots=shots, limit=limit,
        seed=seed, max_tokens=max_tokens, think_budget=think_budget,
    )  # fmt: skip
    found = measure(
        model, files, config, base=base, columns=columns, grader=grader, batch_size=batch_size, out=out,
        progress=Terminal(),
    )  # fmt: skip
    _show(found)
    if out is not None:
        say(f"Figures: {out}")


def _show(run: CapabilityRun) -> None:
    """One line a question file: accuracies, and what training changed."""
    from forethought.report.tables import interval

    by_name, config = {figure.name: figure for figure in run.figures}, run.config
    systems = list(run.results[0].scores)
    columns = ["", "n", "chance", *systems, *(["refused", "difference", "p"] if len(systems) > 1 else []), ""]
    caption = f"Prompt: {config.prompt}, form: {config.form}, seed {config.seed}; 95 % intervals in brackets"
    table = Table(*columns, caption=caption, caption_justify="left")
    for result in run.results:
        name = result.name
        stem = next((s for s in ("", "bits_", "words_") if f"capability_{s}{name}_{systems[-1]}" in by_name), "")
        cells = [interval(by_name.get(f"capability_{stem}{name}_{system}")) for system in systems]
        if len(systems) > 1:
            p = by_name.get(f"capability_mcnemar_p_{name}")
            cells += [
                interval(by_name.get(f"capability_refused_{name}_{systems[-1]}")),
                interval(by_name.get(f"capability_{stem}difference_{name}")),
                "-" if p is None else f"{p.value:.2g}",
            ]
        chance = "-" if result.chance is None else f"{result.chance:.2f}"
        unit = {"bits_": "bits a byte", "words_": "words"}.get(stem, "")
        note = "uninformative: base at chance" if result.informative is False else unit
        table.add_row(name, str(len(result.questions)), chance, *cells, note)
    console.print(table)
    for figure in run.figures:
        if figure.name.startswith("capability_win_rate_"):
            say(f"{figure.name.removeprefix('capability_')}: {interval(figure)}")
