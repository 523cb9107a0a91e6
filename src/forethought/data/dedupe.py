"""Near duplicates within a set, and between training and evaluation.

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
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal, NamedTuple

import snowballstemmer
from SetSimilaritySearch import SearchIndex

from forethought.records import Request

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


class Match(NamedTuple):
    """A request and what it is near."""

    row: int
    """Its place in the requests."""
    neighbour: Neighbour
    """Place in the evaluation requests, or in the requests where `within`."""
    within: bool


def _contradict(one: Request, other: Request) -> bool:
    return one.harmful is not None and other.harmful is not None and one.harmful is not other.harmful


def _same_wording_where_labels_differ(one: Request, other: Request, neighbour: Neighbour) -> bool:
    return neighbour.how == "exact" or not _contradict(one, other)


def contaminated(
    requests: Sequence[Request], against: Sequence[Request], threshold: float = THRESHOLD
) -> list[list[Match]]:
    """For each request, the evaluation requests that it is near, the most similar first."""
    found = near([pieces(one.plain) for one in requests], [pieces(one.plain) for one in against], threshold)
    return [
        [
            Match(row, neighbour, within=False)
            for neighbour in found[row]
            if _same_wording_where_labels_differ(request, against[neighbour.number], neighbour)
        ]
        for row, request in enumerate(requests)
    ]


def repeated(requests: Sequence[Request], threshold: float = WITHIN) -> list[Match]:
    """The requests that are near an earlier one which is kept, each with the most similar such."""
    compared = [pieces(request.plain) for request in requests]
    index = Neighbourhood(compared, threshold)
    repeats: dict[int, Match] = {}
    for row, request in enumerate(requests):
        if row in repeats:
            continue
        # Only kept requests are looked up: of a thousand copies that is one, not all their pairs.
        for place, similarity, how in index.similar(compared[row]):
            later = requests[place]
            if place <= row or later.harmful is not request.harmful:
                continue
            nearer = place not in repeats or similarity > repeats[place].neighbour.similarity
            if nearer and _same_request(request, later, compared[row], compared[place]):
                repeats[place] = Match(place, Neighbour(row, similarity, how), within=True)
    return [repeats[row] for row in sorted(repeats)]


def _same_request(earlier: Request, later: Request, earlier_pieces: Pieces, later_pieces: Pieces) -> bool:
    if earlier.seed_id == later.seed_id and earlier.text != later.text:
        return False  # a seed and its restyled form
    own = (earlier_pieces.words - later_pieces.words, later_pieces.words - earlier_pieces.words)
    return min(len(words) for words in own) < _OWN_WORDS


def remove_duplicates(
    requests: Iterable[Request],
    against: Sequence[Request] = (),
    threshold: float = THRESHOLD,
    within: float = WITHIN,
) -> tuple[list[Request], Counter[str]]:
    """Requests that are near no earlier one and none of `against` (the evaluation sets).

    `threshold` holds against the evaluation sets, `within` in the set itself. Returns
    (kept, removed by cause). The first of several near ones is kept.
    """
    rows = list(requests)
    removed: Counter[str] = Counter()
    clean: list[Request] = []
    for request, matches in zip(rows, contaminated(rows, against, threshold), strict=True):
        if matches:
            removed[f"near an evaluation request ({against[matches[0].neighbour.number].source})"] += 1
        else:
            clean.append(request)
    twice = {match.row for match in repeated(clean, within)}
    if twice:
        removed["near an earlier request of the set"] += len(twice)
    return [request for row, request in enumerate(clean) if row not in twice], removed


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


class Neighbourhood:
    """Requests that can be searched for similar ones."""

    def __init__(self, collection: Sequence[Pieces], threshold: float) -> None:
        """`threshold` is the Jaccard similarity from which one is found, 0 to 1."""
        self._collection = collection
        self._index = _Index([one.all for one in collection], "jaccard", threshold)

    def similar(self, one: Pieces) -> list[Neighbour]:
        """All requests whose pieces are similar enough, the most similar first, then in order."""
        found = [
            Neighbour(number, similarity, "exact" if one.wording == self._collection[number].wording else "near")
            for number, similarity in self._index.search(one.all)
        ]
        return sorted(found, key=_most_similar_first)


def near(requests: Sequence[Pieces], collection: Sequence[Pieces], threshold: float) -> list[list[Neighbour]]:
    """For each request all of the collection that are similar, then all that stand inside it or hold it."""
    similar = Neighbourhood(collection, threshold)
    found = [{neighbour.number: neighbour for neighbour in similar.similar(one)} for one in requests]
    # Of two as long as each other either may hold the other, and then the shares are the same.
    inside = [*_contained(requests, collection)]
    inside += [(row, number, share) for number, row, share in _contained(collection, requests)]
    for row, number, share in inside:
        found[row].setdefault(number, Neighbour(number, share, "contained"))
    return [sorted(one.values(), key=_most_similar_first) for one in found]


def _most_similar_first(neighbour: Neighbour) -> tuple[bool, float, How, int]:
    return neighbour.how == "contained", -neighbour.similarity, neighbour.how, neighbour.number


def _contained(short: Sequence[Pieces], long: Sequence[Pieces]) -> Iterator[tuple[int, int, float]]:
    """(place of the short one, place of a long one that holds it, share of its word pairs held)."""
    index = _Index([one.pairs for one in long], "containment", CONTAINED)
    for place, one in enumerate(short):
        if len(one.words) >= CONTAINED_WORDS:
            for holder, share in index.search(one.pairs):
                if len(one.pairs) <= len(long[holder].pairs):
                    yield place, holder, share


class _Index:
    """The library's index, of no sets as well (which it refuses)."""

    def __init__(self, sets: list[frozenset[str]], function: str, threshold: float) -> None:
        with _no_root_handler():
            self._index = SearchIndex(sets, function, threshold) if sets else None

    def search(self, one: Set[str]) -> list[tuple[int, float]]:
        """(place of a set, similarity), in no particular order."""
        if self._index is None:
            return []
        with _no_root_handler():
            return list(self._index.query(one))


@contextmanager
def _no_root_handler() -> Iterator[None]:
    """The library calls logging.debug, which sets up the root logger for good where it has no handler yet."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
