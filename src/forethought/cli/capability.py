"""`forethought capability`: what a model can still do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, say, show_figures
from forethought.measure.capability import CapabilityConfig

if TYPE_CHECKING:
    from forethought.evaluation.capability import CapabilityRun


@options.spelled_out(CapabilityConfig)
def capability(
    model: options.Model,
    files: Annotated[
        list[str], typer.Argument(help="Question files: MMLU, GSM8K, ARC, PIQA, IFEval, Alpaca and the like, or yours.")
    ],
    settings: CapabilityConfig,
    base: Annotated[
        str | None, typer.Option(help="The base to compare with, for a model that was merged or fully trained.")
    ] = None,
    defence: options.Defence = None,
    columns: Annotated[list[str] | None, options.column("question, options, answer, context, group")] = None,
    grader: Annotated[
        str | None, typer.Option(help="A model that compares open answers, by inspect-ai name; with --form generate.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows scored at once.")] = 16,
    out: Annotated[
        Path | None, typer.Option(help="Write the figures as JSON. Items stand beside it, to resume.")
    ] = None,
) -> None:
    """What a model can still do, through lm-eval, from local files, against chance and against its base.

    The model is asked behind its defences, with the same prompts as its base; a thought is taken out
    before anything is scored, and an item that is refused counts as wrong. Differences are paired on the
    same items. A set on which the base is no better than chance can't show a loss, and is marked so.

    Examples:

      forethought capability embedded arc.jsonl piqa.jsonl --limit 200

      forethought capability runs/quickstart gsm8k.jsonl --form generate
    """
    named = options.column_overrides(columns)
    quiet()
    from forethought.evaluation.capability import capability as measure

    found = measure(
        model, files, settings, base=base, defence=defence, columns=named, grader=grader, batch_size=batch_size,
        out=out, progress=Terminal(),
    )  # fmt: skip
    _show_capability(found)
    if out is not None:
        say(f"Figures: {out}")


def _show_capability(run: CapabilityRun) -> None:
    """One line a question file: accuracies, and what training changed."""
    from forethought.report.tables import interval

    by_name, config = {figure.name: figure for figure in run.figures}, run.config
    systems = list(run.results[0].scores)
    rows: list[tuple[Sequence[str], str | None]] = []
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
        rows.append(([name, str(len(result.questions)), chance, *cells, note], None))
    columns = ["", "n", "chance", *systems, *(["refused", "difference", "p"] if len(systems) > 1 else []), ""]
    caption = f"Prompt: {config.prompt}, form: {config.form}, seed {config.seed}; 95 % intervals"
    show_figures(columns, rows, caption=caption)
    for figure in run.figures:
        if figure.name.startswith("capability_win_rate_"):
            say(f"{figure.name.removeprefix('capability_')}: {interval(figure)}")
