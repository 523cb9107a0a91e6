"""Which requests of a collection are near a given one: exact, without comparing all pairs.

The search is SetSimilaritySearch's (prefix and position filters; Bayardo, Ma and Srikant,
2007): only sets that share one of their rarest pieces are compared, and none that is
similar enough is missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Literal, NamedTuple

from SetSimilaritySearch import SearchIndex

from forethought.data.similarity import Pieces

How = Literal["exact", "near", "contained"]
CONTAINED = 0.8
"""Share of a short request's word pairs inside a long one from which it counts as contained."""
CONTAINED_WORDS = 6
"""Fewest content words of a request that is looked for inside longer ones: fewer turn up by chance."""


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
