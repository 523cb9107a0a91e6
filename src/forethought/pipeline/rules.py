"""Whether requests and policy go together, told before anything is loaded; of own files a few rows are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from forethought.data.classify import rules_by_name
from forethought.data.shipped import under
from forethought.data.sources import SHIPPED, SourceSpec, load_requests
from forethought.errors import ConfigError, ForethoughtError
from forethought.pipeline.recipe import Recipe
from forethought.pipeline.requests import check_held_out
from forethought.pipeline.rows import all_sources
from forethought.policy import Policy, default_policy
from forethought.records import Request

_HEAD = 2000
"""Rows of an own file in which rules are looked for."""
_REMOTE = ("hub:",)


def check_rules(recipe: Recipe, policy: Policy, say: Callable[[str], None]) -> None:
    """What `check_recipe` says of the rules, for a build as well."""
    check_held_out(recipe.data, policy)
    for rule in without_examples(recipe, policy):
        fix = "give `examples` in the policy, or requests with a column that names it"
        say(f"Rule {rule}: no example, it is told by its title and description alone; {fix}")


def missing(recipe: Recipe) -> dict[str, str]:
    """By source that can't be read, why; sets of the hub are not asked for."""
    found: dict[str, str] = {}
    for spec in all_sources(recipe):
        try:
            if not spec.path.startswith(_REMOTE):
                next(_head(spec), None)
        except ForethoughtError as error:
            found[spec.path] = f"{error.rule}. {error.fix}"
    return found


def without_examples(recipe: Recipe, policy: Policy) -> list[str]:
    """Rules, as `S1 Refund fraud`, that no example stands for: none of the policy's, no request that names them.

    Own requests that name no rule are told apart by the policy's own words, so that nothing is missing for certain
    there. Raises ConfigError where no request can break any rule: all of them are of another policy's.
    """
    if policy.hash == default_policy().hash:
        return []
    named: Counter[str] = Counter()
    unnamed = remote = 0
    for spec in recipe.data.harmful:
        if spec.path.startswith(_REMOTE):
            remote += 1
            continue
        try:
            rows = [row for row in islice(_head(spec), _HEAD) if row.harmful is not False]
        except ForethoughtError:
            remote += 1  # told by the stage that reads it
            continue
        for row in under(policy, rows)[0]:
            sure, choices = (row.rules, ()) if row.rules else rules_by_name(row, policy)
            named.update({*sure, *(rule for choice in choices for rule in choice)})
            unnamed += not sure and not choices
    if not named and not unnamed and not remote:
        titles = ", ".join(f"{rule.id} {rule.title}" for rule in policy.rules)
        raise ConfigError(
            f"policy '{policy.name}'",
            f"has no request to learn from: all harmful ones break rules that it lacks (it has {titles})",
            "Give requests that break them: forethought run YOUR_FILE --policy FILE, with a column that names the rule",
        )
    return [f"{rule.id} {rule.title}" for rule in policy.rules if not rule.examples and not named[rule.id]]


def _head(spec: SourceSpec) -> Iterator[Request]:
    if spec.path.startswith(SHIPPED):
        return load_requests(spec, True)
    return islice(load_requests(spec.model_copy(update={"limit": None}), True), _HEAD)
