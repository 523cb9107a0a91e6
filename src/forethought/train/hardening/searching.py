"""Adaptive searches against the current model, on a tiny budget: what they find becomes pairs like any other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from forethought.engine.conversation import Respondent
from forethought.engine.local import LocalModel
from forethought.evals.attacks.adaptive.base import Goal, Tools, opening_of
from forethought.evals.attacks.adaptive.catalogue import parse_method
from forethought.evals.attacks.adaptive.driver import run_searches
from forethought.evals.attacks.adaptive.outcome import SearchSettings
from forethought.evals.attacks.templates import PLACE
from forethought.evals.judges.catalogue import default_judge
from forethought.policy import Policy
from forethought.reasoning import Format
from forethought.train.hardening.pairs import Case, Pair, carried_over
from forethought.train.hardening.pool import Couple
from forethought.train.hardening.settings import HardeningSettings


def search(
    folder: Path,
    model: Respondent,
    couples: Sequence[Couple],
    settings: HardeningSettings,
    policy: Policy,
    fmt: Format,
    seed: int,
) -> tuple[list[Pair], Counter[str]]:
    """What the searches got through with, each with its harmless twin; and what could not be run or used, by cause.

    Every reply stands in `folder`: a search that was stopped goes on where it was. Raises ConfigError for an unknown
    search, ModelError where the model never answers.
    """
    if not settings.search_budget or not settings.searches:
        return [], Counter()
    chosen = random.Random(f"{seed}:searched").sample(list(couples), min(settings.searched, len(couples)))
    by_goal = {harmful.request.id: (harmful, harmless) for harmful, harmless in chosen}
    goals = [
        Goal(request=harmful.request, target_string=opening_of(harmful.request)) for harmful, _ in by_goal.values()
    ]
    local = model if isinstance(model, LocalModel) else None
    # The bare request as the only template: the shipped ones are made of attacks that tests use.
    tools = Tools(able=model.able, policy=policy, format=fmt, thinks=True, model=local, templates=(PLACE,))
    run = run_searches(
        [parse_method(spec) for spec in settings.searches],
        goals,
        model,
        folder,
        default_judge(),
        tools,
        SearchSettings(budget=settings.search_budget, seed=seed, max_answer_tokens=settings.max_answer_tokens),
    )
    unused: Counter[str] = Counter(f"{name}: {cause}" for name, cause in run.not_run.items())
    pairs: list[Pair] = []
    for outcome in run.outcomes:
        if outcome.broken is not True or outcome.best is None:
            continue
        harmful, harmless = by_goal[outcome.goal]
        twin = carried_over(outcome.best, harmful, harmless, seed)
        if twin is None:
            unused[f"{outcome.method}: no harmless twin"] += 1
            continue
        sides = (Case(example=harmful, attacked=outcome.best), Case(example=harmless, attacked=twin))
        pairs.append(Pair(attack=outcome.method, harmful=sides[0], harmless=sides[1]))
    return pairs, unused
