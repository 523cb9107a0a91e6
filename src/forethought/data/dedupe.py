"""Near duplicates within a set and between training and evaluation, and the report of what was removed because of what.

What counts as the same request:

- A request becomes the set of its content words, stemmed, and of the pairs that follow each
  other once function words are gone. Similarity is the exact Jaccard similarity of these sets,
  the same on every machine: `How do I pick a lock?` and `What's the best way to pick locks?`
  are the same set; another verb or object is not.
- What is compared is what is really asked (`Request.plain`): a disguise hides no duplicate.
- Against evaluation sets, a request that stands inside the other one (wrapped in a story) counts
  too, found by containment of its pairs, as n-gram decontamination does.
- Where the labels contradict each other, harmful and harmless, one word may make the
  difference: minimal pairs share nearly all of theirs. So such requests are the same
  only word for word, and within the set never.
- Within the set a row too many costs less than a row lost, so more has to be shared; two
  texts that each have words of their own are two requests in one template; and the
  restyled forms of one seed are meant to be.

The search is SetSimilaritySearch's (prefix and position filters; Bayardo, Ma and Srikant,
2007): only sets that share one of their rarest pieces are compared, and none that is
similar enough is missed.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import snowballstemmer
from SetSimilaritySearch import SearchIndex

from forethought.cluster import Here, Workers, in_chunks
from forethought.data.banding import similar_sets
from forethought.data.shipped import FURTHER, SAMPLE, accepted_answers, shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import ConfigError
from forethought.records import Record, Request, user_request
from forethought.redaction import redact

THRESHOLD = 0.6
"""Jaccard similarity from which a request counts as one of an evaluation set.

Read on public refusal sets: of 55 pairs from here on, 52 ask the same or a special case of it; the
three others ask about another person. Just below stand other works by one author."""
WITHIN = 0.75
"""Jaccard similarity from which a request repeats an earlier one of its own set. Below, pairs
differ in the one word that counts: another company, another group of people."""
_OWN_WORDS = 2
"""Content words that each of two texts must have for itself to be two requests in one template."""
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+")
"""A word, or one character of a script that puts no spaces between words."""
# Words that only frame a request. Negations, `without`, `who`, `where`, `when` and `why` change what is asked: kept.
_FRAME_WORDS = """
    a an the this that these those some any of to in on at by for with from into as about and or but so if than then
    i me my mine we us our you your yours he him his she her it its they them their someone somebody somebodys one s d
    ll m re ve is are was were be been being am do does did have has had can could would will shall should may might
    must how what which way ways best good please tell explain show there here also just really very ok okay hey hi
    want need know like get"""
_FRAME = frozenset(_FRAME_WORDS.split())
_stem = lru_cache(maxsize=100_000)(snowballstemmer.stemmer("english").stemWord)
How = Literal["exact", "near", "contained"]
CONTAINED = 0.8
"""Share of a short request's word pairs inside a long one from which it counts as contained."""
CONTAINED_WORDS = 6
"""Fewest content words of a request that is looked for inside longer ones: fewer turn up by chance."""
_COMPARED = 10_000
"""Requests that a worker compares with the evaluation sets at once: all of these are looked for in them, each time."""


class Pieces(NamedTuple):
    """A request as it is compared."""

    words: frozenset[str]
    """Stems of its content words."""
    pairs: frozenset[str]
    """Content words that follow each other, as `first second`."""

    wording: str
    """All its words as they stand, without case and punctuation."""

    @property
    def all(self) -> frozenset[str]:
        """Words and pairs: the set whose Jaccard similarity counts."""
        return self.words | self.pairs


def pieces(text: str) -> Pieces:
    """The pieces of a text; of all its words where fewer than two bear content, and never none."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    # Zero-width characters and the like would cut words in two.
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    said = _WORD.findall(plain)
    if not said:
        plain = " ".join(plain.split())
        return Pieces(frozenset({plain}), frozenset(), plain)
    content = [word for word in said if word not in _FRAME]
    stems = [_stem(word) for word in (content if len(content) >= 2 else said)]
    return Pieces(frozenset(stems), frozenset(f"{a} {b}" for a, b in itertools.pairwise(stems)), " ".join(said))


def jaccard(one: Pieces, other: Pieces) -> float:
    """Shared pieces over all pieces, 0 to 1."""
    shared = len(one.words & other.words) + len(one.pairs & other.pairs)
    return shared / (len(one.words | other.words) + len(one.pairs | other.pairs))


class Neighbour(NamedTuple):
    """One request of the collection that is near."""

    number: int
    """Its place in the collection."""
    similarity: float
    """Jaccard similarity, 0 to 1; the contained share where `how` is `contained`."""
    how: How


Search = Callable[[frozenset[str]], Iterable[tuple[int, float]]]
"""A set to (place of a similar one, similarity), in no particular order."""


def _index(sets: list[frozenset[str]], function: str, threshold: float) -> Search:
    """The library's index, of no sets as well, which it refuses."""
    if not sets:
        return lambda one: ()
    index = _quietly(SearchIndex, sets, function, threshold)
    return lambda one: list(_quietly(index.query, one))


def _quietly(call: Callable[..., Any], *values: Any) -> Any:
    """The library calls logging.debug, which sets up the root logger for good where it has no handler yet."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        return call(*values)
    finally:
        logging.root.removeHandler(handler)


class Neighbourhood:
    """Requests that can be searched for similar ones; the indexes are made where and when they are first searched."""

    def __init__(self, collection: Sequence[Pieces], threshold: float) -> None:
        """`threshold` is the Jaccard similarity from which one is found, 0 to 1."""
        self.collection, self.threshold = collection, threshold

    @cached_property
    def _search(self) -> Search:
        return _index([one.all for one in self.collection], "jaccard", self.threshold)

    @cached_property
    def _holders(self) -> Search:
        return _index([one.pairs for one in self.collection], "containment", CONTAINED)

    def similar(self, one: Pieces) -> list[Neighbour]:
        """All requests whose pieces are similar enough, the most similar first, then in order."""
        found = [
            Neighbour(number, similarity, "exact" if one.wording == self.collection[number].wording else "near")
            for number, similarity in self._search(one.all)
        ]
        return sorted(found, key=_most_similar_first)

    def holding(self, short: Sequence[Pieces]) -> Iterator[tuple[int, int, float]]:
        """(place of a short one, place of a long one of these that holds it, share of its word pairs held)."""
        for place, one in enumerate(short):
            if len(one.words) >= CONTAINED_WORDS:
                for holder, share in self._holders(one.pairs):
                    if len(one.pairs) <= len(self.collection[holder].pairs):
                        yield place, holder, share


def near(requests: Sequence[Pieces], collection: Neighbourhood) -> list[list[Neighbour]]:
    """For each request all of the collection that are similar, then all that stand inside it or hold it."""
    found = [{neighbour.number: neighbour for neighbour in collection.similar(one)} for one in requests]
    # Of two as long as each other either may hold the other, and then the shares are the same.
    inside = [*collection.holding(requests)]
    holders = Neighbourhood(requests, collection.threshold)
    inside += [(row, number, share) for number, row, share in holders.holding(collection.collection)]
    for row, number, share in inside:
        found[row].setdefault(number, Neighbour(number, share, "contained"))
    return [sorted(one.values(), key=_most_similar_first) for one in found]


def _most_similar_first(neighbour: Neighbour) -> tuple[bool, float, How, int]:
    return neighbour.how == "contained", -neighbour.similarity, neighbour.how, neighbour.number


# Requests


def contaminated(
    requests: Sequence[Request], against: Sequence[Request], threshold: float = THRESHOLD
) -> list[list[Neighbour]]:
    """For each request, the evaluation requests that it is near, the most similar first."""
    return _near_requests(requests, _pieces_of(requests), against, Neighbourhood(_pieces_of(against), threshold))


def _near_requests(
    requests: Sequence[Request], compared: Sequence[Pieces], against: Sequence[Request], tested: Neighbourhood
) -> list[list[Neighbour]]:
    found = near(compared, tested)
    return [
        [
            one
            for one in matches
            if one.how == "exact" or {request.harmful, against[one.number].harmful} != {True, False}
        ]
        for request, matches in zip(requests, found, strict=True)
    ]


def repeated(requests: Sequence[Request], threshold: float = WITHIN) -> dict[int, Neighbour]:
    """Place of a request to the most similar earlier one that it is near and that is kept."""
    compared = _pieces_of(requests)
    index = Neighbourhood(compared, threshold)
    repeats: dict[int, Neighbour] = {}
    for row, request in enumerate(requests):
        if row in repeats:
            continue
        # Only kept requests are looked up: of a thousand copies that is one, not all their pairs.
        for place, similarity, how in index.similar(compared[row]):
            later = requests[place]
            if place <= row or later.harmful is not request.harmful:
                continue
            here, there = compared[row].words, compared[place].words
            same = not _restyled(request, later) and min(len(here - there), len(there - here)) < _OWN_WORDS
            if same and (place not in repeats or similarity > repeats[place].similarity):
                repeats[place] = Neighbour(row, similarity, how)
    return dict(sorted(repeats.items()))


def repeated_across(
    requests: Sequence[Request], workers: Workers, scratch: Path, threshold: float = WITHIN
) -> dict[int, Neighbour]:
    """As `repeated`, over blocks; the folder `scratch` is one that all workers see."""
    if not requests:
        return {}
    found = similar_sets(requests, _pieces_of, threshold, workers, scratch)
    near: dict[int, list[tuple[int, float]]] = defaultdict(list)
    alike = found.own_words < _OWN_WORDS
    pairs = zip(found.one[alike].tolist(), found.other[alike].tolist(), found.similarity[alike].tolist(), strict=True)
    for one, other, similarity in pairs:
        near[one].append((other, similarity))
        near[other].append((one, similarity))
    sizes = np.bincount(found.group)
    kept: dict[int, list[int]] = defaultdict(list)
    """Of a group, the requests that are kept so far."""
    repeats: dict[int, Neighbour] = {}
    for row, group in enumerate(found.group.tolist()):
        if sizes[group] == 1 and group not in near:
            continue
        request = requests[row]
        earlier = [
            (-similarity, place)
            for other, similarity in ((group, 1.0), *near.get(group, ()))
            for place in kept[other]
            if requests[place].harmful is request.harmful and not _restyled(requests[place], request)
        ]
        if not earlier:
            kept[group].append(row)
            continue
        similarity, place = min(earlier)
        same = similarity == -1.0 and pieces(requests[place].plain).wording == pieces(request.plain).wording
        repeats[row] = Neighbour(place, -similarity, "exact" if same else "near")
    return repeats


def _pieces_of(requests: Sequence[Request]) -> list[Pieces]:
    return [pieces(request.plain) for request in requests]


def _restyled(one: Request, other: Request) -> bool:
    """Whether two are forms of one seed, which are meant to be."""
    return one.seed_id == other.seed_id and one.text != other.text


def remove_duplicates(
    requests: Sequence[Request], against: Sequence[Request] = ()
) -> tuple[list[Request], Counter[str]]:
    """(requests that are near no earlier one and none of `against`, the evaluation sets; how many not, by cause).

    The first of several near ones is kept.
    """
    removed: Counter[str] = Counter()
    clean: list[Request] = []
    for request, matches in zip(requests, contaminated(requests, against), strict=True):
        if matches:
            removed[f"near an evaluation request ({against[matches[0].number].source})"] += 1
        else:
            clean.append(request)
    twice = repeated(clean)
    if twice:
        removed["near an earlier request of the set"] += len(twice)
    return [request for row, request in enumerate(clean) if row not in twice], removed


# The report

EVALUATION_SETS = "FORETHOUGHT_EVALUATION_SETS"
"""Environment variable: files and folders whose requests are never trained on, separated as in PATH."""


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
    """Its first characters, or all of it where asked."""
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
    whole_texts: bool = False,
    workers: Workers | None = None,
) -> OverlapReport:
    """All pairs of a request and an evaluation request that count as the same.

    Texts are redacted unless `whole_texts`: they may be harmful.
    """
    sets = {name: (tested, Neighbourhood(_pieces_of(tested), THRESHOLD)) for name, tested in evaluation.items()}
    chunks = in_chunks(workers or Here(), _overlapping, requests, sets, whole_texts, size=_COMPARED)
    found = {name: tuple(pair for chunk in chunks for pair in chunk[name]) for name in evaluation}
    return OverlapReport(
        threshold=THRESHOLD,
        within=WITHIN,
        requests=len(requests),
        evaluation={name: len(tested) for name, tested in evaluation.items()},
        overlaps=found,
    )


def _overlapping(
    requests: Sequence[Request],
    sets: Mapping[str, tuple[Sequence[Request], Neighbourhood]],
    whole_texts: bool,
) -> dict[str, list[Overlap]]:
    """What some of the requests share with each evaluation set."""
    compared = _pieces_of(requests)
    return {
        name: [
            _overlap(request, tested[match.number], match, whole_texts)
            for request, matches in zip(requests, _near_requests(requests, compared, tested, there), strict=True)
            for match in matches
        ]
        for name, (tested, there) in sets.items()
    }


def overlaps_of(source: str, evaluation: str, whole_texts: bool = False) -> OverlapReport:
    """Which requests of one source stand in another, as they are or nearly so; any source that `data` reads."""
    here, there = (list(load_requests(SourceSpec(path=path), None)) for path in (source, evaluation))
    return overlaps(here, {evaluation: there}, whole_texts=whole_texts)


def decontaminate(
    requests: Sequence[Request],
    evaluation: Mapping[str, Sequence[Request]],
    workers: Workers | None = None,
    scratch: Path | None = None,
) -> tuple[list[Request], OverlapReport]:
    """(requests near no evaluation request and no earlier one of the set, what was removed because of what).

    On a cluster near ones within the set are found by `data.banding`, with files in the folder `scratch`.
    """
    workers = workers or Here()
    report = overlaps(requests, evaluation, workers=workers)
    tested = report.contaminated
    clean = [request for request in requests if request.id not in tested] if tested else list(requests)
    if isinstance(workers, Here) or scratch is None:
        twice = repeated(clean)
    else:
        twice = repeated_across(clean, workers, scratch)
    repeats = tuple(_overlap(clean[row], clean[match.number], match, False) for row, match in twice.items())
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
        text=one.plain if whole_texts else redact(one.plain),
        other_text=other.plain if whole_texts else redact(other.plain),
    )


def known_evaluation_sets() -> dict[str, list[Request]]:
    """The sets that are never trained on: shipped test splits and calibration set, capability questions, the user's.

    The calibration set tests nothing, but sets a threshold: scores that training has moved
    on rows like its own say nothing about new requests, and the bound would not hold.
    The user's stand in the environment variable FORETHOUGHT_EVALUATION_SETS, files or
    folders separated as in PATH. Raises ConfigError for one that is not there, InputError
    for one that can't be read: a set that is skipped in silence would be trained on.
    """
    asked = (*accepted_answers(SAMPLE), *accepted_answers(FURTHER))
    sets: dict[str, list[Request]] = {
        "shipped contrast, test": shipped_requests("contrast", "test"),
        "shipped ordinary, test": shipped_requests("ordinary", "test"),
        "shipped calibration": shipped_requests("calibration"),
        "capability": [user_request(t, harmful=False, source="capability", kind="capability") for t in asked],
    }
    for path in os.environ.get(EVALUATION_SETS, "").split(os.pathsep):
        for source, requests in evaluation_set(path.strip()).items() if path.strip() else ():
            sets[source] = [*sets.get(source, ()), *requests]
    return sets


def evaluation_set(path: str) -> dict[str, list[Request]]:
    """The requests of a file or folder by file. Raises ConfigError where there is none."""
    if not Path(path).exists():
        raise ConfigError(path, "there is no such evaluation set", f"Mend the environment variable {EVALUATION_SETS}")
    sets: dict[str, list[Request]] = {}
    for request in load_requests(SourceSpec(path=path), None):
        sets.setdefault(request.source, []).append(request)
    return sets


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
