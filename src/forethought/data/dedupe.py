"""Near duplicates within a set, and between training and evaluation.

What counts as the same request:

- Similarity is the exact Jaccard similarity of content words and their pairs
  (`data/similarity.py`), over what is really asked (`Request.plain`): a disguise hides
  no duplicate.
- Against evaluation sets, a request that stands inside the other one counts too.
- Where the labels contradict each other, harmful and harmless, one word may make the
  difference: minimal pairs share nearly all of theirs. So such requests are the same
  only word for word, and within the set never.
- Within the set a row too many costs less than a row lost, so more has to be shared; two
  texts that each have words of their own are two requests in one template; and the
  restyled forms of one seed are meant to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from forethought.data.neighbours import Neighbour, Neighbourhood, near
from forethought.data.similarity import Pieces, pieces
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
