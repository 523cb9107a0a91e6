"""Any source of requests read as a stream: how its columns were understood, and what was counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from forethought.data.classify import RuleStream, Tally
from forethought.data.sources import SourceSpec, hash_sample, load_requests
from forethought.policy import Policy, load_policy
from forethought.progress import Bar, Progress
from forethought.records import Request

_SHOWN_EVERY = 500
"""Rows between two words about how many there are."""


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
        self._rules = RuleStream(self.policy)

    @property
    def classified(self) -> int:
        """Requests whose rules the classifier decided; those of the others stood in the source."""
        return self._rules.classified

    def __iter__(self) -> Generator[Request, None, None]:
        self._start()
        with self._progress.bar("rows") as bar:
            bar.total(None)
            source = self._spec.model_copy(update={"limit": None})
            rows = _counted(load_requests(source, self._harmful, self._progress.mapping, self._skip), bar)
            drawn = rows if self._spec.limit is None else iter(hash_sample(rows, self._spec.limit))
            yield from self.tally.through(self._rules.through(drawn))

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
