"""What a set shares with the evaluation sets, and with itself: a report of what was removed because of what."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from forethought.data.dedupe import THRESHOLD, WITHIN, How, Neighbour, contaminated, repeated
from forethought.data.shipped import FURTHER, SAMPLE, accepted_answers, shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import ConfigError
from forethought.records import Record, Request, user_request

EVALUATION_SETS = "FORETHOUGHT_EVALUATION_SETS"
"""Environment variable: files and folders whose requests are never trained on, separated as in PATH."""
_SHOWN_WORDS = 3


class Overlap(Record):
    """Two requests that count as the same."""

    id: str
    """Id of the request in the set."""
    source: str
    other_id: str
    """Id of the request that it is near: of an evaluation set, or an earlier one of the set itself."""
    other_source: str
    similarity: float
    """Jaccard similarity of content words and their pairs, or the contained share; 0 to 1."""
    how: How
    text: str
    """Its first words, or all of it where asked."""
    other_text: str


class OverlapReport(Record):
    """What a set shares with evaluation sets, and what it repeats itself."""

    threshold: float
    within: float
    requests: int
    """How many requests were compared."""
    evaluation: dict[str, int]
    """Evaluation set to its number of requests."""
    overlaps: dict[str, tuple[Overlap, ...]]
    """Evaluation set to the pairs found; sets without one are listed with none."""
    repeats: tuple[Overlap, ...] = ()
    """Requests removed because an earlier one of the set is near."""

    @property
    def contaminated(self) -> frozenset[str]:
        """Ids of the requests that are near an evaluation request."""
        return frozenset(pair.id for pairs in self.overlaps.values() for pair in pairs)

    @property
    def counts(self) -> dict[str, int]:
        """Evaluation set to the number of requests, each once, that are near one of its."""
        return {name: len({pair.id for pair in pairs}) for name, pairs in self.overlaps.items()}

    @property
    def evaluation_counts(self) -> dict[str, int]:
        """Evaluation set to the number of its own requests, each once, that the set is near."""
        return {name: len({pair.other_id for pair in pairs}) for name, pairs in self.overlaps.items()}


def overlaps(
    requests: Sequence[Request],
    evaluation: Mapping[str, Sequence[Request]],
    threshold: float = THRESHOLD,
    whole_texts: bool = False,
) -> OverlapReport:
    """All pairs of a request and an evaluation request that count as the same.

    Texts are cut to their first words unless `whole_texts`: they may be harmful.
    """
    found: dict[str, tuple[Overlap, ...]] = {}
    for name, tested in evaluation.items():
        matches = [match for row in contaminated(requests, tested, threshold) for match in row]
        found[name] = tuple(
            _overlap(requests[match.row], tested[match.neighbour.number], match.neighbour, whole_texts)
            for match in matches
        )
    return OverlapReport(
        threshold=threshold,
        within=WITHIN,
        requests=len(requests),
        evaluation={name: len(tested) for name, tested in evaluation.items()},
        overlaps=found,
    )


def overlaps_of(source: str, evaluation: str, whole_texts: bool = False) -> OverlapReport:
    """Which requests of one source stand in another, as they are or nearly so; any source that `data` reads."""
    here, there = (list(load_requests(SourceSpec(path=path), None)) for path in (source, evaluation))
    return overlaps(here, {evaluation: there}, whole_texts=whole_texts)


def decontaminate(
    requests: Sequence[Request], evaluation: Mapping[str, Sequence[Request]], threshold: float = THRESHOLD
) -> tuple[list[Request], OverlapReport]:
    """(requests near no evaluation request and no earlier one of the set, what was removed because of what)."""
    report = overlaps(requests, evaluation, threshold)
    clean = [request for request in requests if request.id not in report.contaminated]
    matches = repeated(clean)
    twice = {match.row for match in matches}
    repeats = tuple(
        _overlap(clean[match.row], clean[match.neighbour.number], match.neighbour, False) for match in matches
    )
    kept = [request for row, request in enumerate(clean) if row not in twice]
    return kept, report.model_copy(update={"repeats": repeats})


def _overlap(one: Request, other: Request, neighbour: Neighbour, whole_texts: bool) -> Overlap:
    return Overlap(
        id=one.id,
        source=one.source,
        other_id=other.id,
        other_source=other.source,
        similarity=round(neighbour.similarity, 4),
        how=neighbour.how,
        text=_shown(one.plain, whole_texts),
        other_text=_shown(other.plain, whole_texts),
    )


def _shown(text: str, whole: bool) -> str:
    words = text.split()
    return text if whole or len(words) <= _SHOWN_WORDS else " ".join(words[:_SHOWN_WORDS]) + " ..."


def known_evaluation_sets() -> dict[str, list[Request]]:
    """The sets that are never trained on: shipped test splits and calibration set, capability questions, the user's.

    The calibration set tests nothing, but sets a threshold: scores that training has moved
    on rows like its own say nothing about new requests, and the bound would not hold.
    The user's stand in the environment variable FORETHOUGHT_EVALUATION_SETS, files or
    folders separated as in PATH. Raises ConfigError for one that is not there, InputError
    for one that can't be read: a set that is skipped in silence would be trained on.
    """
    sets: dict[str, list[Request]] = {
        "shipped contrast, test": shipped_requests("contrast", "test"),
        "shipped ordinary, test": shipped_requests("ordinary", "test"),
        "shipped calibration": shipped_requests("calibration"),
        "capability": _capability(),
    }
    for path in os.environ.get(EVALUATION_SETS, "").split(os.pathsep):
        for name, requests in evaluation_set(path.strip()).items() if path.strip() else ():
            sets[name] = [*sets.get(name, ()), *requests]
    return sets


def evaluation_set(path: str) -> dict[str, list[Request]]:
    """The requests of a file or folder by file. Raises ConfigError where there is none."""
    if not Path(path).exists():
        raise ConfigError(path, "there is no such evaluation set", f"Mend the environment variable {EVALUATION_SETS}")
    sets: dict[str, list[Request]] = {}
    for request in load_requests(SourceSpec(path=path), None):
        sets.setdefault(request.source, []).append(request)
    return sets


def _capability() -> list[Request]:
    name = "capability"
    asked = (*accepted_answers(SAMPLE), *accepted_answers(FURTHER))
    return [user_request(text, harmful=False, source=name, kind=name) for text in asked]


def removed_by_cause(report: OverlapReport) -> Counter[str]:
    """How many requests were removed, by cause, in the words of `remove_duplicates`; each counted once."""
    removed: Counter[str] = Counter()
    counted: set[str] = set()
    for name, pairs in report.overlaps.items():
        fresh = {pair.id for pair in pairs} - counted
        counted |= fresh
        if fresh:
            removed[f"near an evaluation request ({name})"] += len(fresh)
    if report.repeats:
        removed["near an earlier request of the set"] += len(report.repeats)
    return removed
