"""`forethought attack`: options, the plan and the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say
from forethought.judges import DEFAULT_JUDGE

if TYPE_CHECKING:
    from forethought.evaluation.report import AttackRun

_TIME = "Shrink the sample, all attacks alike, to what fits in so many minutes. Searches come on top."


def _list(wanted: bool) -> None:
    if wanted:
        _show_attacks()
        raise typer.Exit


def attack(
    model: options.Model,
    defence: options.Defence = None,
    suite: options.Suite = None,
    attacks: options.Attacks = None,
    benchmarks: options.Benchmarks = None,
    harmless: options.Harmless = None,
    layout: Annotated[str | None, typer.Option(help="The benchmark's layout, where it isn't recognised.")] = None,
    column: options.BenchmarkColumn = None,
    skip_bad: options.SkipBad = False,
    by: Annotated[str, typer.Option(help="Strata of the sample: category, attack or a tag.")] = "category",
    n: Annotated[int, typer.Option("--n", min=1, help="Requests of each label under an attack.")] = 50,
    minutes: Annotated[float | None, typer.Option(min=0.1, help=_TIME)] = None,
    attacker: Annotated[
        str | None, typer.Option(help="A model that translates, rewrites and searches. Without: not run.")
    ] = None,
    attacker_base_url: Annotated[str | None, typer.Option(help="Address of the attacker's server.")] = None,
    evaluator: Annotated[str | None, typer.Option(help="A model that rates for searches. Default: attacker.")] = None,
    templates: Annotated[Path | None, typer.Option(help="A local file of jailbreak templates.")] = None,
    persuasion: Annotated[Path | None, typer.Option(help="A local file of persuasion techniques.")] = None,
    judge: Annotated[
        str, typer.Option(help="A judge's name (`forethought judge --help`), its folder, or ROLE@MODEL.")
    ] = DEFAULT_JUDGE,
    judge_base_url: Annotated[str | None, typer.Option(help="Address of the judge's server.")] = None,
    base_url: Annotated[
        list[str] | None, typer.Option(help="Address of the model's server; repeated, several share the work.")
    ] = None,
    takes_prefill: Annotated[
        bool, typer.Option("--takes-prefill", help="The server goes on in a begun turn, as vLLM does.")
    ] = False,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    max_cost: options.MaxCost = 1.0,
    query_budget: Annotated[int, typer.Option(min=1, help="Queries of a search for one request.")] = 100,
    goals: Annotated[int, typer.Option(min=1, help="Requests of each label that searches are run for.")] = 10,
    max_answer_tokens: options.MaxAnswerTokens = 64,
    seed: Annotated[int, typer.Option(help="Of the sample, the attacks and the searches.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. Default: runs/attack-NAME. Run again to resume.")
    ] = None,
    results: options.RunResults = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another run's folder, such as the base model's: paired differences.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Measure on a trained model's base which styles can be read.")
    ] = False,
    again: Annotated[bool, typer.Option("--rejudge", help="Judge the run's answers anew; asks nothing.")] = False,
    show: options.ShowHarmful = False,
    yes: options.Yes = False,
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

      forethought attack runs/quickstart --suite paper --benchmark harmbench.csv --minutes 30

      forethought attack runs/quickstart --defence none

      forethought attack openai-api/local/NAME --base-url http://localhost:8000/v1 --takes-prefill --suite all
    """
    quiet()
    from forethought.evaluation.attack import attack as attack_model
    from forethought.evaluation.attack import rejudge
    from forethought.evaluation.inputs import AttackSettings
    from forethought.evaluation.report import default_folder
    from forethought.model import load
    from forethought.models.callspec import Price

    settings = AttackSettings(
        suite=suite, attacks=tuple(attacks or ()), benchmarks=tuple(benchmarks or ()), harmless=tuple(harmless or ()),
        layout=layout, columns=options.column_overrides(column), skip_bad=skip_bad, by=by, n=n, minutes=minutes,
        attacker=attacker, attacker_base_url=attacker_base_url, evaluator=evaluator, templates=templates,
        persuasion=persuasion, judge=judge, judge_base_url=judge_base_url,
        price=None if price_in is None or price_out is None else Price(input=price_in, output=price_out),
        query_budget=query_budget, goals=goals, max_answer_tokens=max_answer_tokens, seed=seed, compare=compare,
        control=control,
    )  # fmt: skip
    progress = Terminal(max_cost=max_cost, yes=yes)
    if again:
        folder = out or default_folder(model, defence)
        found = rejudge(folder, settings, results=results, show_harmful=show, progress=progress)
    else:
        opened = load(model, defence=defence, base_url=base_url or (), takes_prefill=takes_prefill)
        found = attack_model(opened, settings, out=out, results=results, show_harmful=show, progress=progress)
    _tell(found)
    raise typer.Exit(int(found.too_many_unscored))


def _tell(run: AttackRun) -> None:
    """The table, what warns, the differences from the other run, and where all is written."""
    _show_summary(run)
    for line in run.warnings:
        say(line, "yellow")
    say(run.control.says, "dim")
    for one in run.comparisons:
        say(f"against {run.compared_name}: {one}")
    if run.compared is not None and not run.comparisons:
        say(f"No attempt stands in both runs, this one and that of {run.compared_name}: nothing is compared", "yellow")
    say(f"Page: {run.page}")
    say(f"Figures: {run.results}")
    say(f"Answers, unredacted: inspect view --log-dir {run.logs}")
    if run.too_many_unscored:
        say(f"{run.unscored:.1%} of the attempts are unscored: the figures leave them out", "yellow")


def _show_attacks() -> None:
    """Every attack and search that can be named."""
    from forethought.attacks.catalogue import all_attacks
    from forethought.attacks.searches.catalogue import all_searches

    table = Table(Column("name", no_wrap=True), Column("kind", no_wrap=True), "title", "needs")
    for attack in all_attacks().values():
        table.add_row(attack.name, attack.kind, escape(attack.title), ", ".join(attack.needs))
    for search in all_searches().values():
        table.add_row(search.name, "search", escape(search.title), ", ".join(search.needs))
    console.print(table)


def _show_summary(run: AttackRun) -> None:
    """The table at the end."""
    from forethought.report.tables import TITLES, not_run_lines, search_lines, sections

    parts, columns = sections(run.report), TITLES.attack_columns
    told = [
        place for place in range(1, len(columns)) if any(_tells(line[place]) for _, lines in parts for line in lines)
    ]
    table = Table(caption="* needs more than a chat window. 95 % intervals in brackets", caption_justify="left")
    table.add_column(columns[0], min_width=22)
    for place in told:
        table.add_column(columns[place], justify="right")
    for title, lines in parts:
        table.add_row(f"[bold]{title}")
        for line in lines:
            cells = [line[0], *(line[place] for place in told)]
            table.add_row(*map(escape, cells), style="bold" if line[0] == "mean" else None)
    if run.report.results:
        console.print(table)
    if run.searches:
        table = Table(*TITLES.search_columns)
        for line in search_lines(run.searches):
            table.add_row(*(escape(cell) for cell in line))
        console.print(table)
    for name, why in not_run_lines(run.summary.not_run, run.run.searches_not_run):
        say(f"Not run: {name}: {why}", "dim")


def _tells(cell: str) -> bool:
    """Whether a cell holds a number: a column without one takes room from the others."""
    return cell[:1].isdigit() or cell.startswith("-0") or cell.startswith("-1")
