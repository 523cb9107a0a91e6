"""`forethought attack`, `compare`, `over-refusal`, `capability`, `calibrate`: what a model withstands and can."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say, show_table
from forethought.errors import ConfigError
from forethought.evaluation.inputs import AttackSettings
from forethought.measure.capability import CapabilityConfig

if TYPE_CHECKING:
    from forethought.evaluation.capability import CapabilityRun
    from forethought.evaluation.over_refusal import OverRefusal
    from forethought.evaluation.report import AttackRun

_MANY = {
    "attacks": {"decls": ("--attack",), "metavar": "SPEC"},
    "benchmarks": {"decls": ("--benchmark",), "metavar": "FILE"},
    "columns": {"decls": ("--column",), "metavar": "NOUN=NAME"},
}
"""How options are written that can be given again."""


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


@options.spelled_out(AttackSettings, **_MANY)
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
    from forethought.evaluation.report import default_folder
    from forethought.model import load

    progress = Terminal(max_cost=max_cost, yes=yes)
    if again:
        folder = out or default_folder(model, defence)
        found = rejudge(folder, settings, results=results, show_harmful=show, progress=progress)
    else:
        opened = load(model, defence=defence, base_url=base_url or (), takes_prefill=takes_prefill)
        found = attack_model(opened, settings, out=out, results=results, show_harmful=show, progress=progress)
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
        show_table(TITLES.search_columns, search_lines(run.searches))
    for name, why in not_run_lines(run.summary.not_run, run.run.searches_not_run):
        say(f"Not run: {name}: {why}", "dim")
    for warning in run.warnings:
        say(warning, "yellow")
    say(run.readability, "dim")
    for one in run.comparisons:
        say(f"against {run.compared_name}: {one}")
    if run.compared_name and not run.comparisons:
        say(f"No attempt stands in both runs, this one and that of {run.compared_name}: nothing is compared", "yellow")
    say(f"Page: {run.page}")
    say(f"Figures: {run.results}")
    say(f"Answers, unredacted: inspect view --log-dir {run.logs}")
    if run.too_many_unscored:
        say(f"{run.unscored:.1%} of the attempts are unscored: the figures leave them out", "yellow")


def _tells(cell: str) -> bool:
    """Whether a cell holds a number."""
    return cell[:1].isdigit() or cell.startswith(("-0", "-1"))


@options.spelled_out(
    AttackSettings, "suite", "attacks", "benchmarks", "harmless", "columns", "n", "max_answer_tokens", "seed",
    n={"min": 2}, **_MANY,
)  # fmt: skip
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            help="NAME=MODEL, twice or more: each name stands in figures and on the page; a model as every command"
            " takes one.",
            metavar="NAME=MODEL ...",
        ),
    ],
    settings: AttackSettings,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/compare-NAMES. Run again to resume.")] = None,
    results: options.RunResults = None,
    show: options.ShowHarmful = False,
) -> None:
    """Puts the same harmful and harmless requests, plain and disguised, to several models, and compares them.

    The last system is set against each other one on the same requests, with intervals and paired tests. Look-alikes and
    short questions are asked besides. Ends with a table, a page and figures. Exits with 1 where more than two in a
    hundred answers of a system could not be judged.

    Examples:

      forethought compare base=embedded defended=runs/quickstart

      forethought compare before=runs/v1 after=runs/v2 --suite paper --benchmark harmbench.csv --n 100
    """
    quiet()
    from forethought.evaluation.compare import compare as put_side_by_side

    pairs = [system.partition("=") for system in systems]
    for name, equals, model in pairs:
        if not (name and equals and model):
            raise ConfigError(name, "is not NAME=MODEL", "Write, say, base=embedded defended=runs/quickstart")
    terminal = Terminal()
    named = {name: model for name, _, model in pairs}
    terminal.comparison(
        put_side_by_side(named, settings, out=out, results=results, show_harmful=show, progress=terminal)
    )


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
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the sample and the disguises.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON; logs beside it, to resume.")] = None,
) -> None:
    """How often harmless requests that look harmful are refused, by why they look so and by disguise.

    Rows that a file labels harmful are its contrasts and reported apart: refusing those is right.
    Full and partial refusals count together, partial ones are also shown alone. An answer that is
    empty or garbled is unscored and counted.

    Examples:

      forethought over-refusal runs/quickstart xstest.csv --styles

      forethought over-refusal embedded shipped:lookalike shipped:ordinary --limit 100
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
    caption = "Share refused, in full or in part; 95 % intervals in brackets"
    table = Table("set", "style", "harmless refused (low)", "in part", "harmful refused (high)", caption=caption)
    for one in found.sets:
        for style in found.styles:
            stem, attack = f"{one.name}_{style}", parse_attack(style)
            names = (f"refused_{stem}_harmless", f"partial_{stem}_harmless", f"refused_{stem}_harmful")
            cells = [interval(by_name.get(f"{name}_{system}")) for name in names]
            title = attack.title + ("" if attack.readable else " (hard to read)")
            table.add_row(one.name if style == found.styles[0] else "", title, *cells)
        start = f"refused_{one.name}_kind_"
        kinds = [figure for name, figure in by_name.items() if name.startswith(start)]
        for figure in sorted(kinds, key=lambda figure: -figure.value):
            kind = figure.name.removeprefix(start).removesuffix(f"_{system}").replace("_", " ")
            table.add_row("", f"  {kind}", interval(figure), "", "", style="dim")
    console.print(table)


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

    A model that thinks gets the same prompts as its base; its thought is taken out before anything
    is scored, and an item that its verdict refuses counts as wrong. Differences are paired on the
    same items. A set on which the base is no better than chance can't show a loss, and is marked so.

    Examples:

      forethought capability embedded arc.jsonl piqa.jsonl --limit 200

      forethought capability runs/quickstart gsm8k.jsonl --form generate --out results.json
    """
    named = options.column_overrides(columns)
    quiet()
    from forethought.evaluation.capability import capability as measure

    found = measure(
        model, files, settings, base=base, columns=named, grader=grader, batch_size=batch_size, out=out,
        progress=Terminal(),
    )  # fmt: skip
    _show_capability(found)
    if out is not None:
        say(f"Figures: {out}")


def _show_capability(run: CapabilityRun) -> None:
    """One line a question file: accuracies, and what training changed."""
    from forethought.report.tables import interval

    by_name, config = {figure.name: figure for figure in run.figures}, run.config
    systems = list(run.results[0].scores)
    rows = []
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
        rows.append([name, str(len(result.questions)), chance, *cells, note])
    columns = ["", "n", "chance", *systems, *(["refused", "difference", "p"] if len(systems) > 1 else []), ""]
    caption = f"Prompt: {config.prompt}, form: {config.form}, seed {config.seed}; 95 % intervals in brackets"
    show_table(columns, rows, caption=caption, caption_justify="left")
    for figure in run.figures:
        if figure.name.startswith("capability_win_rate_"):
            say(f"{figure.name.removeprefix('capability_')}: {interval(figure)}")


def calibrate(
    model: Annotated[
        str, typer.Argument(help="A run or a trained folder; its threshold is replaced, a run's in its best defence.")
    ],
    max_false_refusal: Annotated[
        float, typer.Option(help="Largest share of harmless requests that may be refused, such as 0.05.")
    ],
    confidence: Annotated[float, typer.Option(help="Confidence with which that holds on new requests.")] = 0.95,
    method: Annotated[
        Literal["clopper-pearson", "conformal"],
        typer.Option(help="An exact bound with this confidence, or one that holds on average (fewer requests)."),
    ] = "clopper-pearson",
    harmless: Annotated[
        list[str] | None,
        typer.Option(
            help="Harmless requests like those you expect; can be given again."
            " Default: shipped everyday requests, without look-alikes of harmful ones."
        ),
    ] = None,
    harmful: Annotated[
        list[str] | None, typer.Option(help="Harmful requests, to see the cost. Default: shipped ones.")
    ] = None,
    defence: options.Defence = None,
) -> None:
    """Sets the refusal threshold so that false refusals on new requests are bounded, and says what that costs.

    The bound holds for requests like the harmless ones it is calibrated on: by default everyday
    requests without a disguise, some hundreds of them. Harmless look-alikes of harmful requests are
    not among them; how many are refused is printed apart. For your traffic give your own with
    --harmless. The threshold goes beside the model, where chat, evaluation and server find it.
    Where the sample is too small for the promise nothing is changed, and the number of requests
    it needs is printed.

    Examples:

      forethought calibrate runs/quickstart --max-false-refusal 0.02

      forethought calibrate runs/quickstart --max-false-refusal 0.02 --harmless my_traffic.jsonl
    """
    quiet()
    from forethought.evaluation.calibrate import calibrate as set_threshold

    found = set_threshold(
        model, max_false_refusal, confidence=confidence, method=method, harmless=harmless or (),
        harmful=harmful or (), defence=defence, progress=Terminal(),
    )  # fmt: skip
    say(str(found))
