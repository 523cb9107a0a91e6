"""Near duplicates within a set, and between training and evaluation (MinHash, datasketch)."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from datasketch import MinHash, MinHashLSH

from forethought.records import Request

_PERMUTATIONS = 64
THRESHOLD = 0.7
"""Jaccard similarity of word pairs and words from which two requests count as the same."""


def _sketch(text: str) -> MinHash:
    words = re.findall(r"\w+", text.lower())
    pieces = set(words) | {f"{a} {b}" for a, b in itertools.pairwise(words)}
    sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
    sketch.update_batch([piece.encode() for piece in sorted(pieces)])
    return sketch


def remove_duplicates(
    requests: Iterable[Request], against: Sequence[Request] = (), threshold: float = THRESHOLD
) -> tuple[list[Request], Counter[str]]:
    """Requests that are near no earlier one and none of `against` (the evaluation sets).

    Minimal pairs share most of their words by design: a harmful and a harmless request
    are never duplicates of each other within the set. Returns (kept, removed by cause).
    """
    held_out = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    for number, request in enumerate(against):
        held_out.insert(str(number), _sketch(request.plain))
    seen: dict[bool | None, Any] = {
        label: MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS) for label in (True, False, None)
    }
    kept: list[Request] = []
    removed: Counter[str] = Counter()
    for number, request in enumerate(requests):
        sketch = _sketch(request.plain)
        if matches := held_out.query(sketch):
            removed[f"near an evaluation request ({against[int(matches[0])].source})"] += 1
        elif seen[request.harmful].query(sketch):
            removed["near an earlier request of the set"] += 1
        else:
            seen[request.harmful].insert(str(number), sketch)
            kept.append(request)
    return kept, removed
