"""What asking a teacher about many prompts takes: nodes, hours and dollars, from a rate that was measured elsewhere."""

from __future__ import annotations

import math
from functools import partial

from forethought.data.evolve import draw_styles
from forethought.data.llm_teacher import choose_demonstrations, estimate
from forethought.data.shipped import shipped_requests
from forethought.data.sources import sample
from forethought.data.taught import TeachTask
from forethought.errors import ConfigError
from forethought.pipeline.evolve import operators_of
from forethought.pipeline.recipe import Recipe
from forethought.policy import load_policy
from forethought.records import Record
from forethought.research import PlanSettings

_SAMPLED = 100
"""Requests of each side, whose calls are estimated."""


class Fleet(Record):
    """Nodes that ask a teacher about every prompt once."""

    prompts: int
    input_tokens: int
    """Of all calls."""
    output_tokens: int
    nodes: int
    hours: float
    dollars: float | None
    """US dollars; None where no price of a node was given."""
    assumptions: tuple[str, ...]


def fleet(recipe: Recipe, settings: PlanSettings) -> Fleet | None:
    """What `settings.prompts` take; None where none are named. Raises ConfigError where the teacher's rate is missing.

    Tokens are those of shipped requests in the recipe's styles, half of them harmful.
    """
    if settings.prompts is None:
        return None
    if settings.rate is None:
        fix = "Measure it on one server: the tokens that it writes in a second with all its places taken"
        raise ConfigError("--prompts", "needs --rate, what one server of the teacher writes", fix)
    policy, build, prompts = load_policy(recipe.policy), recipe.build, settings.prompts
    shown = partial(choose_demonstrations, seed=recipe.seed, folder=build.demonstration_folder)
    operators = {
        name: one.model_copy(update={"demonstrations": shown(one)}) for name, one in operators_of(build).items()
    }
    tasks = []
    for name, per_seed in (("harmful", build.rows_per_harmful), ("ordinary", build.rows_per_harmless)):
        rows = sample(shipped_requests(name), _SAMPLED)
        for request in rows:
            drawn = draw_styles([request], operators, per_seed, build.styled_share, recipe.seed)
            styles = tuple(operators[style] for _, style in drawn if style is not None)
            known = tuple(rule for rule in request.rules if rule in policy.rule_ids)
            tasks.append(TeachTask(request=request.model_copy(update={"rules": known}), operators=styles, twin=False))
    calls = estimate(tasks, policy, build.teacher.calls, None)
    read, written = (round(part / len(tasks) * prompts) for part in (calls.input_tokens, calls.output_tokens))
    server_hours = written / settings.rate / 3600.0
    nodes = settings.nodes or max(1, math.ceil(server_hours / settings.within_hours / settings.node_servers))
    hours = server_hours / settings.node_servers / nodes
    dollars = None if settings.node_dollars is None else nodes * hours * settings.node_dollars
    assumptions = (
        f"{written / prompts:.0f} tokens written and {read / prompts:.0f} read for a prompt, as for shipped requests in"
        " the recipe's styles, half of them harmful;"
        f" {calls.shared_tokens / calls.input_tokens:.0%} of what is read is the same in every call",
        f"{settings.node_servers} servers a node, each writing {settings.rate:g} tokens a second as given, all busy to"
        " the end; no answer is asked for again",
    )
    return Fleet(
        prompts=prompts, input_tokens=read, output_tokens=written, nodes=nodes, hours=hours, dollars=dollars,
        assumptions=assumptions,
    )  # fmt: skip
