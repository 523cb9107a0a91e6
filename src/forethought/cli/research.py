"""`forethought sweep`, `study`, `ladder`, `inside`, `plan`: defences compared, looked into and planned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say, show_table
from forethought.errors import ConfigError
from forethought.records import Record
from forethought.research import PlanSettings

if TYPE_CHECKING:
    from forethought.research.config import Sweep
    from forethought.research.inside.look import Inside
    from forethought.research.plan import Plan
    from forethought.research.sweep import SweepReport

Sets = list[str] | None


class Sweeping(Record, use_attribute_docstrings=True):
    """How many defences are run at once, taken up again and shown."""

    out: Path | None = None
    """Folder. Default: runs/NAME. Run again to resume."""
    results: Path | None = None
    """Where the figures go. Default: beside the page."""
    plan: bool = False
    """Show the cells and exit; nothing is run."""
    only: tuple[str, ...] = ()
    """Do the cells of this defence alone and show nothing. For a cluster."""
    so_far: bool = False
    """Report what is done; the rest is listed as missing."""
    kept: Path | None = None
    """Folder of another run of the same file, or of its committed log: cells that are not done here are taken from
    there."""
    yes: bool = False
    """Don't ask what it may cost."""


@options.spelled_out(Sweeping)
def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep (.yaml): bases, methods, seeds, budgets and attacks.")],
    settings: Sweeping,
    workers: Annotated[
        int, typer.Option(min=1, help="Defences worked on at once, each in a process with its share of cores or GPUs.")
    ] = 1,
) -> None:
    """Trains and attacks many defences on the same base, rows, budget and requests, and compares them.

    Data is built once for each base and seed. Every stage of every defence is kept: a sweep that
    was stopped goes on where it was, and one with a method more does that method alone. A defence
    that can't be trained is listed with its reason. Ends with a table, a page and figures.
    Exits with 1 where a defence is missing, or more than two in a hundred answers of a cell could
    not be judged.

    Examples:

      forethought sweep recipes/zoo.yaml

      forethought sweep recipes/zoo.yaml --plan
    """
    quiet()
    from forethought.research.config import load_sweep

    _sweep(load_sweep(file), settings, file=file, workers=workers)


@options.spelled_out(Sweeping)
def study(
    settings: Sweeping,
    file: Annotated[Path, typer.Argument(help="The study, a sweep (.yaml).")] = Path("recipes/study.yaml"),
    benchmark: Annotated[
        Sets,
        typer.Option(help="Requests to put to the defences instead: with labels, or harmful ones. Again for more."),
    ] = None,
    benchmark_harmless: Annotated[
        Sets, typer.Option(help="Harmless requests beside --benchmark, where that has no labels.")
    ] = None,
    benchmark_lookalikes: Annotated[
        Sets, typer.Option(help="Harmless requests that look harmful, as the safe half of XSTest.")
    ] = None,
    style: Annotated[
        Sets,
        typer.Option(help="Styles instead of the study's, as `forethought attack` names them. Again for more."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="A file of templates of yours, each of which is a style, as [cyan]{request}[/].")
    ] = None,
) -> None:
    """Compares reasoning with the other defences, on the study's requests or on yours.

    With --benchmark, --style or --templates nothing is trained otherwise: the defences of the study, trained
    where they are not yet, are put to your requests or styles. Requests near a training row are
    left out and counted. Styles near a trained one are reported apart.

    Examples:

      forethought study

      forethought study --so-far --kept results/study

      forethought study --benchmark my_requests.csv

      forethought study --benchmark harmful.txt --benchmark-harmless harmless.txt
    """
    quiet()
    from forethought.research.config import load_sweep
    from forethought.research.sweep import asked_otherwise

    chosen = asked_otherwise(
        load_sweep(file), benchmark or (), benchmark_harmless or (), benchmark_lookalikes or (), style or (), templates
    )
    # What somebody else asked stands beside the study's own.
    _sweep(chosen, settings, report_in=f"asked-{chosen.evaluate.asks}" if chosen.evaluate.asks else "")


def _sweep(chosen: Sweep, settings: Sweeping, **how: Any) -> None:
    """Runs it and tells what came of it; where that is wanted, shows the cells alone, or does those of some defences.

    Exits with 1 where it is incomplete.
    """
    from forethought.research.sweep import run_defences, run_sweep

    progress = Terminal(max_cost=1.0, yes=settings.yes)
    if settings.plan:
        _show_cells(chosen)
        return
    if settings.only:
        if settings.kept is not None:
            place = f"--kept {settings.kept}"
            raise ConfigError(place, "has no use beside --only, which reports nothing", "Leave one out")
        raise typer.Exit(int(not run_defences(chosen, settings.out, settings.only, progress)))
    found = run_sweep(
        chosen, settings.out, results=settings.results, so_far=settings.so_far, kept=settings.kept, progress=progress,
        **how,
    )  # fmt: skip
    _tell(found)


def _tell(found: SweepReport) -> None:
    """The table, the goals, what is in doubt, and where all is written. Exits with 1 where it is incomplete."""
    from forethought.research.table import goal_table, sweep_table

    console.print(sweep_table(found.rows, console.width))
    if found.goals:
        console.print(goal_table(found.goals))
    for defence, cells in found.doubtful:
        worst = max(cells, key=cells.__getitem__)
        say(
            f"{defence}: more than two in a hundred answers could not be judged in {len(cells)} cells,"
            f" {cells[worst]:.0%} in {worst}",
            "yellow",
        )
    say(f"Report: {found.page}")
    say(f"Figures: {found.results}")
    raise typer.Exit(int(not found.complete))


def _show_cells(chosen: Sweep) -> None:
    """What would be run, without running it."""
    rows = []
    trained = {entry.label for entry in chosen.methods}
    untrained = [name for name in chosen.defences if name not in trained]
    for base in chosen.bases:
        for seed in chosen.seeds:
            for name in untrained if seed == chosen.seeds[0] else ():  # all seeds are put to the same requests
                rows.append((name, base, "any", "none"))
            for budget in chosen.budgets:
                for entry in chosen.methods:
                    if seed in (entry.seeds or chosen.seeds):
                        lent = f"those of {entry.weights_of}" if entry.weights_of else f"{budget:,}"
                        rows.append((entry.label, base, str(seed), lent))
    show_table(("defence", "base", "seed", "training tokens"), rows, box=None)


@options.spelled_out(Sweeping, "out", "results", "so_far", "kept", "yes")
def ladder(
    settings: Sweeping,
    folder: Annotated[Path, typer.Argument(help="A folder of sweeps (.yaml), run in the order of their names.")] = Path(
        "recipes/ladder"
    ),
) -> None:
    """Changes one thing at a time in a recipe, and shows what each change gave.

    Each sweep of the folder is run as `forethought sweep` would run it, all in one folder: a step
    that stands in several is trained once, and a ladder that was stopped goes on where it was.
    Ends with a table of all steps beside the one that they are set against, and one results file.

    Example:

      forethought ladder recipes/ladder --results results/ladder.json
    """
    quiet()
    from forethought.research.ladder import ladder_table, load_ladder, run_ladder

    root = settings.out or Path("runs") / folder.resolve().name
    target = settings.results or root / "results.json"
    progress = Terminal(max_cost=1.0, yes=settings.yes)
    found = run_ladder(load_ladder(folder), root, target, progress, settings.so_far, settings.kept)
    console.print(ladder_table(found.steps, found.reference, console.width))
    say(f"Report: {found.page}")
    say(f"Figures: {target}")
    raise typer.Exit(int(any(one.missing for one in found.steps)))


def inside(
    model: Annotated[str, typer.Argument(help="A run folder, or a trained folder of a model that thinks.")],
    requests: Annotated[
        str, typer.Option(help="`shipped`, or a labelled set of yours, split by family: half of it fits the probes.")
    ] = "shipped",
    style: Annotated[
        list[str] | None,
        typer.Option(help="An attack to disguise requests with; can be repeated. Default: readable, unseen ones."),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many held-out requests of each kind.")] = 50,
    fit_limit: Annotated[int, typer.Option(min=2, help="At most so many of each kind to fit probes on.")] = 200,
    text_column: options.TextColumn = None,
    seed: Annotated[int, typer.Option(help="Of the sample and of who lends an intent.")] = 0,
    show: options.ShowHarmful = False,
    out: Annotated[Path | None, typer.Option(help="Folder of figures and page. Default: runs/inside/NAME.")] = None,
) -> None:
    """What a model's verdict rests on: its thought, or what it knew before.

    Four questions. Does the verdict follow the stated intent, when another request's is written
    into the thought? Do disguised requests fail in the intent, or in the verdict after a right
    intent? How much of the verdict can a linear probe decode before the first word? And what is
    the verdict worth with the model's own thought, without one, and with another's?

    Writes inside.json and inside.html.

    Examples:

      forethought inside runs/quickstart

      forethought inside runs/quickstart --style role_play --style style_json --limit 100
    """
    quiet()
    from forethought.research.inside.report import inside as look_inside

    run = look_inside(
        model, requests, style or (), limit=limit, fit_limit=fit_limit, text_column=text_column, seed=seed,
        show_harmful=show, out=out, progress=Terminal(),
    )  # fmt: skip
    _show_inside(run.found)
    say(f"Figures: {run.results}")
    say(f"Page: {run.page}")
    say(f"Plots by themselves: {run.plots}")


def _show_inside(found: Inside) -> None:
    """A table for each of the questions."""
    from forethought.report.tables import TITLES
    from forethought.research.inside.report import area_lines, swap_lines

    if swaps := swap_lines(found.figures):
        question = "Does the verdict follow the stated intent?"
        show_table((question, ""), swaps, caption="95 % intervals", caption_justify="left")
    else:
        say("No intent could be swapped: right verdicts with a stated intent all stand on one side.")
    failures = [(one.title, *map(str, one.counts)) for one in found.tables]
    columns = ("Where requests fail", "both right", "intent wrong", "verdict wrong", "both wrong", "no verdict")
    show_table(columns, failures)
    lines = area_lines(found.figures)
    lines = [*lines[:2], *lines[2:][-1:]]
    areas = [(mark["title"], *(cells[number] for _, cells in lines)) for number, mark in enumerate(TITLES.areas)]
    show_table(("AUROC", *(name for name, _ in lines)), areas)
    for name, why in found.missing.items():
        say(f"Not measured: {name}, {why}")


@options.spelled_out(PlanSettings)
def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.yaml).")],
    settings: PlanSettings,
    json_output: options.Json = False,
) -> None:
    """What training a recipe takes, before it is run: parameters, steps, memory of a device, hours.

    Shapes are enough: no weights are loaded, and nothing is trained unless --measure is given.
    Says whether it fits, and if not, what would make it fit.

    Examples:

      forethought plan recipes/quickstart.yaml

      forethought plan recipes/quickstart.yaml --model llama-70b --devices 8 --sharded
    """
    quiet()
    from forethought.research.plan import plan_recipe

    found = plan_recipe(recipe, settings)
    if json_output:
        console.print_json(found.model_dump_json())
    else:
        _show_plan(found)


def _show_plan(found: Plan) -> None:
    """The plan as a table, whether it fits, and what was assumed."""
    part = found.footprint
    spread = f"{found.devices.n}" + (", sharded" if found.devices.sharded else "")
    lines = (
        ("model", found.model),
        ("parameters", f"{part.parameters:,}"),
        ("trained parameters", f"{part.trained:,}"),
        ("rows, tokens", f"{found.rows:,}, {found.tokens:,} (all epochs)"),
        ("steps", f"{found.steps:,}"),
        ("devices", spread),
        ("weights, GiB a device", f"{part.weights_gib:.2f}"),
        ("optimiser", f"{part.optimiser_gib:.2f}"),
        ("activations", f"{part.activations_gib:.2f}"),
        ("logits", f"{part.logits_gib:.2f}"),
        ("gradients, after those", f"{part.gradients_gib:.2f}"),
        ("gathered weights", f"{part.gathered_gib:.2f}"),
        ("at most, GiB a device", f"{found.needed_gib:.2f} of {found.device_gib:g}"),
        ("hours", f"{found.hours:.2g} ({found.hours * 3600:,.0f} s)"),
    )
    show_table(("", ""), lines, show_header=False)
    verdict = "Fits." if found.fits else f"Does not fit. What would: {found.fix}"
    say(verdict, "green" if found.fits else "yellow")
    say("Assumed:")
    for assumption in found.assumptions:
        say(f"  - {assumption}")
