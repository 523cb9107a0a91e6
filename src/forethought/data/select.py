"""Requests of a source as train, dev and test, by family or content; and samples drawn by content."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from forethought.data.shipped import shipped_requests
from forethought.data.sources import SHIPPED, ColumnMapping, OnSkip, SourceSpec, load_requests
from forethought.errors import InputError
from forethought.records import Request, Split


def load_split(
    specs: Sequence[SourceSpec],
    harmful: bool,
    held_out_share: float,
    dev_share: float,
    on_mapping: Callable[[str, ColumnMapping], None] | None = None,
    on_skip: OnSkip | None = None,
) -> dict[Split, list[Request]]:
    """The requests of some sources by split; of a source with labels, those of the side asked for.

    Shipped sets are split by their families, other sources by content id, so that the
    split of a request never depends on the rest of the file. Raises InputError when a
    source has rows of one label only where the other was announced.
    """
    parts: dict[Split, list[Request]] = {"train": [], "dev": [], "test": []}
    for spec in specs:
        if spec.path.startswith(SHIPPED):
            drawn = {request.id for request in load_requests(spec, harmful)}
            for split in parts:
                rows = shipped_requests(spec.path.removeprefix(SHIPPED), split)
                parts[split] += [request for request in rows if request.id in drawn]
            continue
        rows = list(load_requests(spec, harmful, on_mapping, on_skip, only=harmful))
        if not rows:
            kind = "harmful" if harmful else "harmless"
            raise InputError(
                spec.path, f"holds no {kind} request", "Check its label column, or list it on the other side"
            )
        for row in rows:
            parts[_split_of(row, held_out_share, dev_share)].append(row)
    return parts


def _split_of(request: Request, held_out_share: float, dev_share: float) -> Split:
    place = int(request.id, 16) / 16 ** len(request.id)
    return "test" if place < held_out_share else "dev" if place < held_out_share + dev_share else "train"


def cap_per_rule(requests: Sequence[Request], most: int) -> list[Request]:
    """At most `most` harmful requests of each (source, rule); which ones depends on their content alone."""
    groups: dict[tuple[str, str], list[Request]] = defaultdict(list)
    for request in requests:
        groups[(request.source, request.rules[0] if request.rules else "")].append(request)
    return [request for group in groups.values() for request in sample(group, most)]


def sample(requests: Sequence[Request], most: int, seed: int = 0) -> list[Request]:
    """At most `most` requests, drawn by content hash: adding a request moves few others. Keeps their order."""
    if len(requests) <= most:
        return list(requests)
    rank = {r.id: hashlib.sha256(f"{seed}:{r.id}".encode()).hexdigest() for r in requests}
    chosen = set(sorted(rank, key=rank.__getitem__)[:most])
    return [request for request in requests if request.id in chosen]


def within_budget(lengths: Sequence[int], budget: int, seed: int = 0) -> list[int]:
    """Places of the rows that fit a token budget, drawn at random, in their first order. `lengths` are in tokens."""
    order = list(range(len(lengths)))
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    spent = 0
    for place in order:
        if spent + lengths[place] <= budget:
            chosen.append(place)
            spent += lengths[place]
    return sorted(chosen)
