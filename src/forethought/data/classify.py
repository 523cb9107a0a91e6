"""Which rules do harmful requests break? By their own labels, else by category name, else by the classifier.

It assigns rules to requests known to be harmful; it doesn't decide whether they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from forethought.policy import Policy
from forethought.records import Request

if TYPE_CHECKING:
    from forethought.data.rule_classifier import Kind, RuleClassifier

EMBEDDED_FROM, EMBEDDED_LIMIT = 30, 4_000
"""From and up to so many requests the embedded model reads them. For fewer, loading it takes longer than
it is worth; for more, reading takes over a minute on two cores. Those go to TF-IDF."""
SECOND_SHARE = 0.8
"""A second rule is kept when it is at least so likely as this share of the first's probability."""


@dataclass
class Assignment:
    """Requests with their rules, and how they came by them."""

    requests: list[Request] = field(default_factory=list)
    """In their order, without the unsure ones; harmless ones unchanged."""
    unsure: list[Request] = field(default_factory=list)
    """Harmful requests whose most likely rule lies below the floor: left out, and without rules."""
    by_classifier: int = 0
    """How many the classifier decided, those it left unsure included."""
    narrowed: int = 0
    """How many of these had a wide category name, among whose rules it chose."""
    two_rules: int = 0
    """How many the classifier gave a second rule."""
    classifier: RuleClassifier | None = None
    """The classifier that decided, for a caller that goes on with more requests."""


@dataclass
class _Open:
    """A request that names leave open."""

    place: int
    sure: tuple[str, ...]
    """Rules that some of its names stand for alone."""
    choices: tuple[frozenset[str], ...]
    """One set for each wide name; empty: any rule."""


def rules_by_name(request: Request, policy: Policy) -> tuple[tuple[str, ...], tuple[frozenset[str], ...]]:
    """Rules that its category names stand for alone, and the choices that wide names leave.

    `Self-Harm` stands for one rule. `Illicit / Criminal Behavior` stands for several of
    which a request breaks one or another: which, the name doesn't say. A wide name of
    which a sure rule is part leaves no choice.
    """
    named = [_named(label, policy) for label in request.categories]
    sure = tuple(dict.fromkeys(rules[0] for rules in named if len(rules) == 1))
    wide = [frozenset(rules) for rules in named if len(rules) > 1 and not set(rules) & set(sure)]
    return sure, tuple(dict.fromkeys(wide))


def _named(label: str, policy: Policy) -> tuple[str, ...]:
    """Rules of a name, with or without the code before it (`S10: Hate`, `O9: Privacy Infringement`)."""
    return policy.rules_for_category(label) or policy.rules_for_category(
        re.sub(r"^\s*[A-Za-z]{0,2}\d+\s*[:.)-]\s*", "", label)
    )


def best_kind(n_requests: int) -> Kind:
    """`embedded` where its package is installed and the number of requests makes it worth while, else `text`."""
    from forethought.models.weights import embedded_available  # with it comes PyTorch, which most sets don't need

    return "embedded" if EMBEDDED_FROM <= n_requests <= EMBEDDED_LIMIT and embedded_available() else "text"


def new_classifier(policy: Policy, known: Sequence[Request], kind: Kind) -> RuleClassifier:
    """A trained classifier. What it is made of is loaded here: most sets name their categories and need none."""
    from forethought.data.rule_classifier import RuleClassifier

    return RuleClassifier(policy, known, kind)


def assign(
    requests: Sequence[Request],
    policy: Policy,
    classifier: RuleClassifier | None = None,
    min_rule_probability: float = 0.0,
    kind: Kind | None = None,
) -> Assignment:
    """Gives harmful requests without rules the rules they break.

    `classifier` None trains one when it is needed, on the requests that names settle as
    well; pass one to work through a stream in chunks. `kind` is what it is trained to
    see; None is the better one for so many requests. Requests whose most likely rule has
    a probability below `min_rule_probability` (0 to 1) are left out and counted. Raises
    ConfigError for a rule id that the policy does not have.
    """
    found = Assignment(classifier=classifier)
    ruled: list[Request | None] = []
    open_requests: list[_Open] = []
    for place, request in enumerate(requests):
        if request.harmful and not request.rules:
            sure, choices = rules_by_name(request, policy)
            if choices or not sure:
                open_requests.append(_Open(place, sure, choices))
            else:
                request = request.model_copy(update={"rules": sure})
        for rule in request.rules:
            policy.rule(rule)  # raises for an id that the policy does not have
        ruled.append(request)
    if open_requests:
        if classifier is None:
            known = [request for request in ruled if request and request.harmful and len(request.rules) == 1]
            classifier = new_classifier(policy, known, kind or best_kind(len(open_requests)))
            found.classifier = classifier
        texts = [requests[one.place].plain for one in open_requests]
        for one, row in zip(open_requests, classifier.probabilities(texts), strict=True):
            ruled[one.place] = _decide(requests[one.place], one, row, classifier.rules, min_rule_probability, found)
    found.requests = [request for request in ruled if request is not None]
    return found


def _decide(
    request: Request, one: _Open, row: NDArray[np.float64], ids: tuple[str, ...], floor: float, found: Assignment
) -> Request | None:
    """The request with its rules; None when it is unsure. Counts in `found`."""
    found.by_classifier += 1
    found.narrowed += bool(one.choices)
    rules = list(one.sure)
    sure_enough = True
    for choice in one.choices or (frozenset(ids),):
        among = [index for index in np.argsort(-row, kind="stable") if ids[index] in choice]
        share = row[among] / max(row[among].sum(), 1e-12)
        sure_enough &= bool(share[0] >= floor)
        rules.append(ids[among[0]])
        if not one.choices and len(among) > 1 and share[1] >= SECOND_SHARE * share[0]:
            rules.append(ids[among[1]])
            found.two_rules += 1
    if not sure_enough and not one.sure:
        found.unsure.append(request)
        return None
    return request.model_copy(update={"rules": tuple(dict.fromkeys(rules))})
