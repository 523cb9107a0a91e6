"""`forethought attack`: a model against everything the field knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, say, show_figures, show_table
from forethought.evaluation.inputs import AttackSettings

if TYPE_CHECKING:
    from forethought.evaluation.report import AttackRun


def _list(wanted: bool) -> None:
    """Every attack and search that can be named."""
    if not wanted:
        return
    from forethought.attacks.catalogue import all_attacks
    from forethought.attacks.searches.base import all_searches

    rows = [(one.name, str(one.kind), one.title, ", ".join(one.needs)) for one in all_attacks().values()]
    rows += [(one.name, "search", one.title, ", ".join(one.needs)) for one in all_searches().values()]
    show_table(("name", "kind", "title", "needs"), rows, whole=2)
    raise typer.Exit


@options.spelled_out(AttackSettings, **options.SPELLED)
def attack(
    model: options.Model,
    settings: AttackSettings,
    defence: options.Defence = None,
    base_url: Annotated[
        list[str] | None, typer.Option(help="Address of the model's server; repeated, several share the work.")
    ] = None,
    takes_prefill: Annotated[
        bool, typer.Option("--takes-prefill", help="The server goes on in a begun turn, as vLLM does.")
    ] = False,
    max_cost: options.MaxCost = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. Default: runs/attack-NAME. Run again to resume.")
    ] = None,
    results: options.RunResults = None,
    again: Annotated[bool, typer.Option("--rejudge", help="Judge the run's answers anew; asks nothing.")] = False,
    show: options.ShowHarmful = False,
    yes: options.Yes = False,
    on: options.On = None,
    listed: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=_list, help="Name every attack and search, and end.")
    ] = False,
) -> None:
    """Attacks a model with everything the field knows, on harmful and on harmless requests alike.

    Says first what will be run, what won't and why. All attempts go to the model in one batch and
    are kept as they finish: a run that was stopped goes on where it was. Ends with a table, a page
    and figures. Exits with 1 where more than two in a hundred answers could not be judged.

    Examples:

      forethought attack embedded

      forethought attack runs/quickstart --benchmark harmbench.csv --minutes 30

      forethought attack runs/quickstart --defence none

      forethought attack http://localhost:8000/v1#NAME --takes-prefill --suite all
    """
    quiet()
    from forethought.cluster import connect
    from forethought.evaluation.attack import attack as attack_model
    from forethought.evaluation.attack import rejudge
    from forethought.evaluation.report import default_folder
    from forethought.model import load

    progress = Terminal(max_cost=max_cost, yes=yes)
    how: dict[str, Any] = {"results": results, "show_harmful": show, "progress": progress, "on": on}
    if again:
        found = rejudge(out or default_folder(model, defence), settings, **how)
    else:
        with connect(on):
            opened = load(model, defence=defence, base_url=base_url or (), takes_prefill=takes_prefill, on=on)
            found = attack_model(opened, settings, out=out, **how)
    show_attack(found)
    raise typer.Exit(int(found.too_many_unscored))


def show_attack(run: AttackRun) -> None:
    """The table, what warns, the differences from the other run, and where all is written."""
    from forethought.report.tables import TITLES, not_run_lines, search_lines, sections

    parts, columns = sections(run.report), TITLES.attack_columns
    # A column without a number takes room from the others.
    told = [
        place for place in range(1, len(columns)) if any(_tells(line[place]) for _, lines in parts for line in lines)
    ]
    rows: list[tuple[Sequence[str], str | None]] = []
    for title, lines in parts:
        rows.append(((title,), "bold"))
        for line in lines:
            rows.append(((line[0], *(line[place] for place in told)), "bold" if line[0] == "mean" else None))
    if run.report.results:
        caption = "* needs more than a chat window. 95 % intervals beside or below their figures"
        show_figures((columns[0], *(columns[place] for place in told)), rows, caption=caption)
    if run.searches:
        show_figures(TITLES.search_columns, [(line, None) for line in search_lines(run.searches)])
    for name, why in not_run_lines(run.summary.not_run, run.run.searches_not_run):
        say(f"Not run: {name}: {why}", "dim")
    for warning in run.warnings:
        say(warning, "yellow")
    say(run.readability, "dim")
    for one in run.comparisons:
        say(f"against {run.compared.name if run.compared else ''}: {one}")
    if run.compared is not None and not run.comparisons:
        say(f"No attempt stands in both runs, this one and that of {run.compared.name}: nothing is compared", "yellow")
    say(f"Page: {run.page}")
    say(f"Figures: {run.results}")
    say(f"Answers, unredacted: inspect view --log-dir {run.logs}")
    if run.too_many_unscored:
        say(f"{run.unscored:.1%} of the attempts are unscored: the figures leave them out", "yellow")


def _tells(cell: str) -> bool:
    """Whether a cell holds a number."""
    return cell[:1].isdigit() or cell.startswith(("-0", "-1"))
