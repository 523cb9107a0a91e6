"""`forethought attack`, to be mounted by the root of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import DefenceOption
from forethought.commands.attack import attack as run_attack
from forethought.commands.attack_inputs import AttackChoice

_MODEL = "A trained folder, a model folder, `embedded`, or a server's model as inspect-ai names it."
_ATTACK = "An attack or a search, options and composition included (see --list, docs/attacks.md); can be repeated."
_BENCHMARK = "A benchmark of any layout, or `shipped`; can be repeated."
_TIME = "Shrink the sample, all attacks alike, to what fits in so many minutes. Searches come on top."


def _list(wanted: bool) -> None:
    if wanted:
        from forethought.commands.attack_views import show_attacks

        show_attacks()
        raise typer.Exit


def attack(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    adapter: Annotated[Path | None, typer.Option(help="A trained adapter; its base is MODEL.")] = None,
    defence: DefenceOption = None,
    suite: Annotated[
        str | None, typer.Option(help="quick, paper, reasoning, adaptive, all or a YAML file. Default: quick.")
    ] = None,
    attacks: Annotated[list[str] | None, typer.Option("--attack", metavar="SPEC", help=_ATTACK)] = None,
    benchmarks: Annotated[list[str] | None, typer.Option("--benchmark", metavar="FILE", help=_BENCHMARK)] = None,
    harmless: Annotated[
        list[str] | None, typer.Option(help="Harmless requests, the control. Default: the benchmark's, else shipped.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="The benchmark's layout, where it isn't recognised.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="NOUN=NAME", help="Instead of a layout, as `forethought benchmark`.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave malformed rows out, and name them.")] = False,
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
    ] = AttackChoice.judge,
    judge_base_url: Annotated[str | None, typer.Option(help="Address of the judge's server.")] = None,
    base_url: Annotated[
        list[str] | None, typer.Option(help="Address of the model's server; repeated, several share the work.")
    ] = None,
    takes_prefill: Annotated[
        bool, typer.Option("--takes-prefill", help="The server goes on in a begun turn, as vLLM does.")
    ] = False,
    price_in: Annotated[float | None, typer.Option(help="US dollars for a million input tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(help="US dollars for a million output tokens.")] = None,
    max_cost: Annotated[float, typer.Option(min=0.0, help="US dollars from which to ask before calling.")] = 1.0,
    query_budget: Annotated[int, typer.Option(min=1, help="Queries of a search for one request.")] = 100,
    goals: Annotated[int, typer.Option(min=1, help="Requests of each label that searches are run for.")] = 10,
    max_answer_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the sample, the attacks and the searches.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. Default: runs/attack-NAME. Run again to resume.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Where the figures go. Default: OUT/results.json.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another run's folder, such as the base model's: paired differences.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Measure on a trained model's base which styles can be read.")
    ] = False,
    rejudge: Annotated[bool, typer.Option("--rejudge", help="Judge the run's answers anew; asks nothing.")] = False,
    show: Annotated[bool, typer.Option("--show-harmful", help="Leave texts on the page unredacted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask about the cost.")] = False,
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

      forethought attack runs/quickstart/5-train --suite paper --benchmark harmbench.csv --minutes 30

      forethought attack runs/my_refusals/5-train --defence "fused:runs/my_refusals/8-fuse | unforged"

      forethought attack openai-api/local/NAME --base-url http://localhost:8000/v1 --takes-prefill --suite all
    """
    choice = AttackChoice(
        model=model, adapter=adapter, defence=defence, suite=suite, attacks=tuple(attacks or ()),
        benchmarks=tuple(benchmarks or ()), harmless=tuple(harmless or ()), layout=layout,
        columns=tuple(column or ()), skip_bad=skip_bad, by=by, n=n,
        minutes=minutes, attacker=attacker, attacker_base_url=attacker_base_url, evaluator=evaluator,
        templates=templates, persuasion=persuasion, judge=judge, judge_base_url=judge_base_url,
        base_urls=tuple(base_url or ()), takes_prefill=takes_prefill, price_in=price_in, price_out=price_out,
        max_cost=max_cost, query_budget=query_budget, goals=goals, max_answer_tokens=max_answer_tokens, seed=seed,
        out=out, results=results, compare=compare, control=control, rejudge=rejudge, show=show, yes=yes,
    )  # fmt: skip
    raise typer.Exit(run_attack(choice))
