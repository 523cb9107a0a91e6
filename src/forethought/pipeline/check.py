"""What a run would stop at, told before its first stage: `plan` tells the same."""

from __future__ import annotations

from collections.abc import Callable

from forethought.attacks.catalogue import BY_RULE
from forethought.data.sources import load_requests
from forethought.defences.catalogue import check_spec
from forethought.errors import ConfigError
from forethought.measure.capability import need_lm_eval
from forethought.measure.capability.questions import load_questions
from forethought.pipeline.evolve import operators_of
from forethought.pipeline.fitting import FUSIONS
from forethought.pipeline.recipe import Recipe
from forethought.pipeline.requests import check_rules
from forethought.pipeline.solving import check_apart
from forethought.pipeline.training import taught_by
from forethought.policy import Policy


def check_recipe(recipe: Recipe, policy: Policy, say: Callable[[str], None] = lambda line: None) -> None:
    """Raises ConfigError for what no stage could do, whatever the data; and where the policy has nothing to learn.

    `say` hears of rules that no example stands for.
    """
    if recipe.evaluate.questions:
        need_lm_eval()
        for file in recipe.evaluate.questions:
            load_questions(file)
    for attack in recipe.evaluate.attacks:
        if attack not in BY_RULE:
            raise ConfigError(f"attack '{attack}'", "there is no such attack", f"Use one of {', '.join(BY_RULE)}")
    if recipe.around:
        if recipe.fusion not in FUSIONS:
            place = f"around: {recipe.fusion}"
            raise ConfigError(place, "is no fusion that a run fits", f"Begin with {', '.join(FUSIONS)}")
        check_spec(recipe.around, FUSIONS)
    for spec in recipe.fit_on:
        next(iter(load_requests(spec, False)), None)  # a source that is not there is told now
    method, _ = taught_by(recipe)
    if not method.thinks or method.needs_complied:
        reason = "gives no verdict" if not method.thinks else "needs the base model's answers to harmful requests"
        raise ConfigError(f"method: {method.name}", f"{reason}, which a run can't use", "Put it in a sweep")
    operators_of(recipe.build)
    if recipe.build.solve is not None:
        check_apart(recipe.build.solve, recipe.evaluate.attacks)
    check_rules(recipe, policy, say)
