"""Which rule does a request break? For sets that name no category of their own.

A small classifier (TF-IDF of words and character pieces, logistic regression,
scikit-learn) trained on the policy's examples and, where the rules are the default
policy's, on the training families of the shipped set. It assigns rules to requests
known to be harmful; it doesn't decide whether they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from forethought.data.shipped import shipped_requests
from forethought.errors import ConfigError
from forethought.policy import Policy, default_policy
from forethought.records import Request


class RuleClassifier:
    """Texts to rule ids. Deterministic for a policy and its examples."""

    def __init__(self, policy: Policy, labelled: Sequence[Request] = ()) -> None:
        """Trains on the policy's examples, the shipped set, and `labelled` requests with known rules.

        Raises ConfigError when fewer than two rules have an example.
        """
        texts = [example for rule in policy.rules for example in rule.examples]
        rules = [rule.id for rule in policy.rules for _ in rule.examples]
        for rule in policy.rules:
            texts.append(f"{rule.title}. {rule.description}")
            rules.append(rule.id)
        known = list(labelled)
        if _same_rules(policy):
            known += shipped_requests("harmful", "train")
        for request in known:
            if request.rules and request.rules[0] in policy.rule_ids:
                texts.append(request.plain)
                rules.append(request.rules[0])
        if len(set(rules)) < 2:
            raise ConfigError(policy.name, "has a single rule: nothing to tell apart", "Add rules or label the set")
        features = make_union(
            TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
            TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5), max_features=40_000),
        )
        self._model: Any = make_pipeline(features, LogisticRegression(C=20.0, max_iter=300, class_weight="balanced"))
        self._model.fit(texts, rules)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most likely rule id for each text."""
        return [str(rule) for rule in self._model.predict(list(texts))] if texts else []


def _same_rules(policy: Policy) -> bool:
    """Whether rule ids mean what the shipped set means by them."""
    shipped = {rule.id: rule.title for rule in default_policy().rules}
    return all(shipped.get(rule.id) == rule.title for rule in policy.rules)


def assign_rules(
    requests: Sequence[Request], policy: Policy, allowed: frozenset[str] | None = None
) -> tuple[list[Request], int]:
    """Harmful requests with rules: their own, else by category name, else by the classifier.

    A request whose categories all stand for no rule of the policy goes to the classifier
    as well: another taxonomy's name is no proof that the policy has nothing to say.
    `allowed` keeps requests of these rules alone. Returns (requests, how many the
    classifier decided); harmless requests pass unchanged.
    """
    ruled: list[Request] = []
    open_places: list[int] = []
    for request in requests:
        if request.harmful and not request.rules:
            found = [rule for label in request.categories for rule in policy.rules_for_category(label)]
            if found:
                request = request.model_copy(update={"rules": tuple(dict.fromkeys(found))})
            else:
                open_places.append(len(ruled))
        for rule in request.rules:
            policy.rule(rule)  # raises for an id that the policy does not have
        ruled.append(request)
    if open_places:
        labelled = [request for request in ruled if request.harmful and len(request.rules) == 1]
        predicted = RuleClassifier(policy, labelled[:5000]).predict([ruled[place].plain for place in open_places])
        for place, rule in zip(open_places, predicted, strict=True):
            ruled[place] = ruled[place].model_copy(update={"rules": (rule,)})
    if allowed is not None:
        ruled = [request for request in ruled if not request.harmful or set(request.rules) & allowed]
    return ruled, len(open_places)
