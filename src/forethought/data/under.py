"""Requests under a policy that is not theirs: rules are told by title, and what it has no rule for is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from forethought.data.shipped import SOURCES
from forethought.policy import Policy, Rule, default_policy
from forethought.records import Request


def under(policy: Policy, requests: Iterable[Request]) -> tuple[list[Request], Counter[str]]:
    """(the requests with rules of this policy, how many were left out by the rule that it lacks).

    The ids of shipped requests are the default policy's, whatever this one calls so; those of others are this one's, or
    names that it knows. A request whose rules it names in several ways is left to the classifier.
    """
    kept: list[Request] = []
    left_out: Counter[str] = Counter()
    same = {rule.id: _same(policy, rule) for rule in default_policy().rules}
    for request in requests:
        names = [_name(request, rule) for rule in request.rules]
        if request.source in SOURCES:
            known = [rule for rule in request.rules if same[rule]]
        else:
            known = [rule for rule in request.rules if rule in policy.rule_ids]
        if len(known) == len(request.rules):
            kept.append(request)
            continue
        meant = [found for name in names for found in (policy.rules_for_category(name),) if found]
        if not known and not meant:
            left_out[names[0]] += 1
            continue
        sure = tuple(dict.fromkeys([*known, *(found[0] for found in meant if len(found) == 1)]))
        update = {"rules": sure} if sure else {"rules": (), "categories": (*request.categories, *names)}
        kept.append(request.model_copy(update=update))
    return kept, left_out


def _same(policy: Policy, rule: Rule) -> bool:
    return rule.id in policy.rule_ids and policy.rule(rule.id).title == rule.title


def _name(request: Request, rule: str) -> str:
    """What a policy may know a rule by: of shipped requests its title, else what stands there."""
    return default_policy().rule(rule).title if request.source in SOURCES else rule
