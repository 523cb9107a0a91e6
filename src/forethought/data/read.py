"""Any source of requests read as a stream: how its columns were understood, and what was counted on the way."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path

from forethought.data.classify import assign
from forethought.data.sources import SourceSpec, hash_sample, load_requests
from forethought.policy import Policy, load_policy
from forethought.progress import Bar, Progress
from forethought.records import Request

_SHOWN_EVERY = 500
"""Rows between two words about how many there are."""


CHUNK = 5000
"""Requests that are held at once while their rules are found."""


def with_rules(requests: Iterable[Request], policy: Policy, on_classified: Callable[[int], None]) -> Iterator[Request]:
    """The requests with their rules, in memory that does not grow with their number; harmless ones unchanged.

    The classifier is fitted once, on the policy's examples and on the requests with a known rule of the chunk that
    first needs it; `on_classified(n)` is told how many it decided. A set of one chunk gets the same rules as from
    `assign`. Raises ConfigError for a rule that the policy lacks.
    """
    stream, classifier = iter(requests), None
    while chunk := list(itertools.islice(stream, CHUNK)):
        # The quick classifier: the better one reads some thirty texts a second.
        found = assign(chunk, policy, classifier, kind="text")
        classifier = found.classifier
        on_classified(found.by_classifier)
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


class Reading:
    """The requests of a source, each with its rules; what was counted stands here when they have passed.

    Every pass reads the source anew, and memory does not grow with it.
    """

    def __init__(self, spec: SourceSpec, policy: Policy, harmful: bool | None, progress: Progress) -> None:
        self.policy = policy
        self._spec, self._harmful, self._progress = spec, harmful, progress
        self._start()

    def _start(self) -> None:
        self.tally = Tally()
        """Requests by label and by rule, and a sample of them."""
        self.skipped: Counter[str] = Counter()
        """Rows left out, by cause."""
        self.malformed: list[str] = []
        """Where malformed rows stand, and what is wrong with them."""
        self.classified = 0
        """Requests whose rules the classifier decided; those of the others stood in the source."""

    def __iter__(self) -> Generator[Request, None, None]:
        self._start()
        with self._progress.bar("rows") as bar:
            bar.total(None)
            source = self._spec.model_copy(update={"limit": None})
            rows = _counted(load_requests(source, self._harmful, self._progress.mapping, self._skip), bar)
            drawn = rows if self._spec.limit is None else iter(hash_sample(rows, self._spec.limit))
            yield from self.tally.through(with_rules(drawn, self.policy, self._classify))

    def _classify(self, count: int) -> None:
        self.classified += count

    def _skip(self, cause: str, where: str) -> None:
        self.skipped[cause] += 1
        if cause == "malformed":
            self.malformed.append(where)


def read_requests(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    harmful: bool | None = True,
    limit: int | None = None,
    skip_bad: bool = False,
    policy: Policy | str | Path | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Reads a file, a folder, a set of the hub or a shipped one (`shipped:harmful`), in any of the formats known.

    `columns` names columns by noun (`{"text": "my_column"}`) where the guess is wrong. `harmful` is said of rows
    without a label of their own. At most `limit` requests are drawn, by content hash. `skip_bad` leaves malformed rows
    out; else the first raises InputError, when it is reached.
    """
    spec = SourceSpec(path=str(source), columns=dict(columns or {}), limit=limit, skip_bad=skip_bad)
    rules = policy if isinstance(policy, Policy) else load_policy(policy)
    return Reading(spec, rules, harmful, progress or Progress())


def _counted(rows: Iterator[Request], bar: Bar) -> Iterator[Request]:
    for number, row in enumerate(rows, start=1):
        if number % _SHOWN_EVERY == 0:
            bar.advance(_SHOWN_EVERY)
        yield row
