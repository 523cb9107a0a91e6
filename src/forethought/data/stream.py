"""Requests in chunks: rules for each, counts and samples of all, in memory that does not grow with the set."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from forethought.policy import Policy
from forethought.records import Request

CHUNK = 5000
"""Requests that are held at once."""


class RuleStream:
    """Rules for a stream of requests: their own, else by category name, else by the classifier.

    The classifier is fitted once, on the policy's examples and on the requests with a
    known rule of the chunk that first needs it. A set of one chunk gets the same rules
    as from `assign_rules`.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known_ids = frozenset(policy.rule_ids)
        self._by_category: dict[str, tuple[str, ...]] = {}
        self._classifier: Any = None
        self.classified = 0
        """How many requests the classifier decided."""

    def through(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The requests with rules; harmless ones unchanged. Raises ConfigError for a rule that the policy lacks."""
        stream = iter(requests)
        while chunk := list(itertools.islice(stream, CHUNK)):
            yield from self._ruled(chunk)

    def _ruled(self, chunk: list[Request]) -> list[Request]:
        ruled: list[Request] = []
        open_places: list[int] = []
        for request in chunk:
            if request.harmful and not request.rules:
                found = [rule for label in request.categories for rule in self._rules_for(label)]
                if found:
                    request = request.model_copy(update={"rules": tuple(dict.fromkeys(found))})
                else:
                    open_places.append(len(ruled))
            for rule in request.rules:
                if rule not in self._known_ids:
                    self._policy.rule(rule)  # raises
            ruled.append(request)
        if open_places:
            predicted = self._predict([ruled[place].plain for place in open_places], ruled)
            for place, rule in zip(open_places, predicted, strict=True):
                ruled[place] = ruled[place].model_copy(update={"rules": (rule,)})
            self.classified += len(open_places)
        return ruled

    def _rules_for(self, label: str) -> tuple[str, ...]:
        """The policy's rules for a category; remembered, since millions of rows share a few names."""
        if label not in self._by_category:
            if len(self._by_category) > 100_000:  # free text in the category column
                self._by_category.clear()
            self._by_category[label] = self._policy.rules_for_category(label)
        return self._by_category[label]

    def _predict(self, texts: list[str], chunk: list[Request]) -> list[str]:
        if self._classifier is None:
            from forethought.data.classify import RuleClassifier

            labelled = [request for request in chunk if request.harmful and len(request.rules) == 1]
            self._classifier = RuleClassifier(self._policy, labelled)
        return list(self._classifier.predict(texts))


class Tally:
    """Counts of a stream, and a sample of it: every request has the same chance to be in it."""

    def __init__(self, samples: int = 5, seed: int = 0) -> None:
        self.total = 0
        self.by_label: Counter[bool | None] = Counter()
        self.by_rule: Counter[str] = Counter()
        """Harmful requests by the first of their rules."""
        self.repeated = 0
        """Requests that stand there before, word for word."""
        self._samples = samples
        self._rng = random.Random(seed)
        self._reservoir: list[tuple[int, Request]] = []
        self._seen: set[int] = set()

    @property
    def sample(self) -> list[Request]:
        """The sample, in the order of the stream."""
        return [request for _, request in sorted(self._reservoir, key=lambda entry: entry[0])]

    def through(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The same requests, counted as they pass."""
        for request in requests:
            self._add(request)
            yield request

    def _add(self, request: Request) -> None:
        self.by_label[request.harmful] += 1
        if request.harmful:
            self.by_rule.update(request.rules[:1])
        short = int(request.id, 16)  # six bytes of the content hash: a tenth of the text's memory
        self.repeated += short in self._seen
        self._seen.add(short)
        if len(self._reservoir) < self._samples:
            self._reservoir.append((self.total, request))
        else:
            place = self._rng.randrange(self.total + 1)  # algorithm R (Vitter 1985)
            if place < self._samples:
                self._reservoir[place] = (self.total, request)
        self.total += 1
