"""`forethought plan`: what training a recipe takes, before it is run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import console, quiet, say, show_table
from forethought.research import PlanSettings

if TYPE_CHECKING:
    from forethought.research.fleet import Fleet
    from forethought.research.plan import Plan


@options.spelled_out(PlanSettings)
def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe (.yaml).")],
    settings: PlanSettings,
    json_output: options.Json = False,
) -> None:
    """What training a recipe takes, before it is run: parameters, steps, memory of a device, hours.

    Shows the whole recipe, with every default, and what a run would stop at. Planned for is this
    machine, unless another is named. Shapes are enough: no weights are loaded, and nothing is
    trained unless --measure is given. Says whether it fits, and if not, what would make it fit.

    Examples:

      forethought plan recipes/quickstart.yaml

      forethought plan recipes/70b.yaml --on h100 --devices 8 --sharded

      forethought plan RECIPE --prompts 1000000 --rate 2500 --node-servers 2
    """
    quiet()
    from forethought.research.plan import plan_recipe

    found = plan_recipe(recipe, settings)
    if json_output:
        console.print_json(found.model_dump_json())
    else:
        _show_plan(found)


def _show_plan(found: Plan) -> None:
    """The recipe written out, the plan as a table, whether it fits, what was assumed, what a run would stop at."""
    import yaml

    say("The recipe, with what it doesn't name:", "bold")
    say(yaml.safe_dump(found.recipe, sort_keys=False, allow_unicode=True, width=78), "dim")
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
        ("at most, GiB a device", f"{found.needed_gib:.2f} of {found.device_gib:.3g}"),
        ("training, hours", f"{found.hours:.2g} ({found.hours * 3600:,.0f} s)"),
    )
    show_table(("", ""), lines, show_header=False)
    if found.teaching is not None:
        _show_fleet(found.teaching)
    verdict = "Fits." if found.fits else f"Does not fit. What would: {found.fix}"
    say(verdict, "green" if found.fits else "yellow")
    say("Assumed:")
    for assumption in found.assumptions:
        say(f"  - {assumption}")
    for note in found.notes:
        say(note, "yellow")
    for stop in found.stops:
        say(f"A run would stop: {stop}", "red")


def _show_fleet(found: Fleet) -> None:
    """What asking a teacher about all prompts takes."""
    say("Asking a teacher:")
    lines = (
        ("prompts", f"{found.prompts:,}"),
        ("tokens read", f"{found.input_tokens:,}"),
        ("tokens written", f"{found.output_tokens:,}"),
        ("nodes", f"{found.nodes:,}"),
        ("hours", f"{found.hours:.3g}"),
        ("US dollars", "a node's price was not given" if found.dollars is None else f"{found.dollars:,.0f}"),
    )
    show_table(("", ""), lines, show_header=False)
    for assumption in found.assumptions:
        say(f"  - {assumption}")
