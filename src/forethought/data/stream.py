"""Requests in chunks: rules for each, counts and samples of all, in memory that does not grow with the set."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from forethought.data.classify import assign
from forethought.policy import Policy
from forethought.records import Request

if TYPE_CHECKING:
    from forethought.data.rule_classifier import RuleClassifier

CHUNK = 5000
"""Requests that are held at once."""


class RuleStream:
    """Rules for a stream of requests: their own, else by category name, else by the classifier.

    The classifier is fitted once, on the policy's examples and on the requests with a
    known rule of the chunk that first needs it. A set of one chunk gets the same rules
    as from `classify.assign`.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._classifier: RuleClassifier | None = None
        self.classified = 0
        """How many requests the classifier decided."""

    def through(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The requests with rules; harmless ones unchanged. Raises ConfigError for a rule that the policy lacks."""
        stream = iter(requests)
        while chunk := list(itertools.islice(stream, CHUNK)):
            # The quick classifier: the better one reads some thirty texts a second.
            found = assign(chunk, self._policy, self._classifier, kind="text")
            self._classifier = found.classifier
            self.classified += found.by_classifier
            yield from found.requests


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
