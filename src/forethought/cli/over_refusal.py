"""`forethought over-refusal`: harmless requests that a model refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, say, show_figures

if TYPE_CHECKING:
    from forethought.evaluation.over_refusal import OverRefusal


def over_refusal(
    model: options.Model,
    files: Annotated[
        list[str], typer.Argument(help="XSTest, OR-Bench, CyberSecEval and the like, yours, or shipped:lookalike.")
    ],
    styles: Annotated[
        bool, typer.Option("--styles", help="Also under every attack's disguise: a disguise is no crime.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many requests of each label a file.")] = None,
    columns: Annotated[list[str] | None, options.column("text, label, category")] = None,
    defence: options.Defence = None,
    max_tokens: options.MaxTokens = 64,
    seed: Annotated[int, typer.Option(help="Of the sample and the disguises.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON; logs beside it, to resume.")] = None,
) -> None:
    """How often harmless requests that look harmful are refused, by why they look so and by disguise.

    Rows that a file labels harmful are its contrasts and reported apart: refusing those is right.
    Full and partial refusals count together, partial ones are also shown alone. An answer that is
    empty or garbled is unscored and counted.

    Examples:

      forethought over-refusal runs/quickstart xstest.csv --styles

      forethought over-refusal embedded shipped:lookalike --limit 100
    """
    named = options.column_overrides(columns)
    quiet()
    from forethought.attacks.catalogue import BY_RULE
    from forethought.evaluation.over_refusal import over_refusal as measure
    from forethought.model import load

    found = measure(
        load(model, defence=defence), files, styles=BY_RULE if styles else (), limit=limit, columns=named,
        max_tokens=max_tokens, seed=seed, out=out, progress=Terminal(),
    )  # fmt: skip
    _show_refusals(found)
    for cause, count in found.unscored.items():
        say(f"Unscored: {count}, {cause}")
    say(f"Answers: inspect view --log-dir {found.logs}")
    if out is not None:
        say(f"Figures: {out}")


def _show_refusals(found: OverRefusal) -> None:
    """One line a set and style, and below a set's first one by why its requests look harmful."""
    from forethought.attacks.catalogue import parse_attack
    from forethought.report.tables import interval

    by_name, system = {figure.name: figure for figure in found.figures}, found.system
    rows: list[tuple[Sequence[str], str | None]] = []
    for one in found.sets:
        for style in found.styles:
            stem, attack = f"{one.name}_{style}", parse_attack(style)
            names = (f"refused_{stem}_harmless", f"partial_{stem}_harmless", f"refused_{stem}_harmful", f"auroc_{stem}")
            cells = [interval(by_name.get(f"{name}_{system}")) for name in names]
            title = attack.title + ("" if attack.readable else " (hard to read)")
            rows.append(((one.name if style == found.styles[0] else "", title, *cells), None))
        start = f"refused_{one.name}_kind_"
        kinds = [figure for name, figure in by_name.items() if name.startswith(start)]
        for figure in sorted(kinds, key=lambda figure: -figure.value):
            kind = figure.name.removeprefix(start).removesuffix(f"_{system}").replace("_", " ")
            rows.append((("", f"  {kind}", interval(figure), "", "", ""), "dim"))
    columns = ("set", "style", "harmless refused (low)", "in part", "harmful refused (high)", "AUROC (high)")
    caption = "Share refused, in full or in part, and how well scores tell both sides; 95 % intervals beside or below"
    show_figures(columns, rows, titles=2, caption=caption)
