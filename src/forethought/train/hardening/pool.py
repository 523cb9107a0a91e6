"""The requests of a training set that may be attacked, those held out, and the rows that stay for training.

Only the examples that a method is given are used: test requests are not among them.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from forethought.errors import InputError
from forethought.records import Example, Message, Request
from forethought.train.hardening.settings import HardeningSettings

_ENOUGH = 10
"""Held-out requests that there are at least, where that is no more than a quarter."""

Couple = tuple[Example, Example]
"""A harmful and a harmless example, undisguised, that are attacked alike."""


@dataclass(frozen=True)
class Pool:
    """A training set, divided."""

    harmful: tuple[Example, ...]
    """Undisguised, one a request, each with its refusal; to be attacked and trained on."""
    harmless: tuple[Example, ...]
    """The same for harmless requests; the answer may be empty, where the thought alone is taught."""
    held_out: tuple[Couple, ...]
    """To be attacked, and never trained on."""
    trainable: tuple[Example, ...]
    """All rows but those of the held-out requests, their variants and twins."""


def make_pool(examples: Sequence[Example], settings: HardeningSettings, seed: int) -> Pool:
    """Divides a training set by family, so that variants and twins stand on one side.

    Raises InputError where too few requests of one label are left to attack.
    """
    harmful, harmless = _undisguised(examples, "refusal"), _undisguised(examples, "benign")
    held = _held_groups(harmful, harmless, settings, seed)
    inside = [[one for one in side if group_of(one.request) not in held] for side in (harmful, harmless)]
    outside = [[one for one in side if group_of(one.request) in held] for side in (harmful, harmless)]
    for label, (left, out) in {"harmful": (inside[0], outside[0]), "harmless": (inside[1], outside[1])}.items():
        if not left or not out:
            needed = "with a refusal " if label == "harmful" else ""
            raise InputError(
                f"{len(left) + len(out)} {label} requests {needed}in the rows",
                "are too few to attack some and to hold others out",
                "Give more rows, and build them with answers (build.refusal_share)",
            )
    rng = random.Random(f"{seed}:held out")
    return Pool(
        harmful=tuple(inside[0]),
        harmless=tuple(inside[1]),
        held_out=tuple(couples(outside[0], outside[1], settings.requests, rng)),
        trainable=tuple(one for one in examples if group_of(one.request) not in held),
    )


def couples(harmful: Sequence[Example], harmless: Sequence[Example], most: int, rng: random.Random) -> list[Couple]:
    """At most so many couples, drawn at random: a harmful request with its own harmless twin where it has one.

    Where one label is short its requests are used again; no couple comes twice.
    """
    first, rest = rng.sample(list(harmful), len(harmful)), rng.sample(list(harmless), len(harmless))
    twins = {one.request.twin: one for one in rest if one.request.twin}
    size = min(most, max(len(first), len(rest)))
    found: dict[tuple[str, str], Couple] = {}
    for place in range(size):
        one = first[place % len(first)]
        twin = twins.pop(one.request.twin, None) if place < len(first) else None
        other = twin or rest[place % len(rest)]
        found.setdefault((one.request.id, other.request.id), (one, other))
    return list(found.values())


def group_of(request: Request) -> str:
    """What a request, its variants and its twin share."""
    return request.family or request.twin or request.seed_id


def _undisguised(examples: Sequence[Example], term: str) -> list[Example]:
    """One example a request, as it is asked without a disguise; one with an answer where there is one."""
    found: dict[str, Example] = {}
    for example in examples:
        if example.term != term or example.prefill or (term == "refusal" and not example.answer):
            continue
        known = found.get(example.request.plain_id)
        if known is None or (example.answer and not known.answer):
            found[example.request.plain_id] = example.model_copy(update={"request": _plain(example.request, term)})
    return list(found.values())


def _plain(request: Request, term: str) -> Request:
    """The request without its disguise, labelled by its row."""
    last = Message(role="user", content=request.plain)
    return request.model_copy(
        update={
            "messages": (*request.messages[:-1], last),
            "operator": None,
            "seed_text": None,
            "harmful": term == "refusal",
        }
    )


def _share_of(n: int, settings: HardeningSettings) -> int:
    """How many of n requests are held out. A handful measures nothing, so small sets give more than their share."""
    return min(settings.requests, max(math.ceil(settings.held_out * n), min(_ENOUGH, n // 4)))


def _held_groups(
    harmful: Sequence[Example], harmless: Sequence[Example], settings: HardeningSettings, seed: int
) -> frozenset[str]:
    """Groups taken in an order that depends on content and seed alone, until both labels have their share."""
    sides = [Counter(group_of(one.request) for one in side) for side in (harmful, harmless)]
    wanted = [_share_of(side.total(), settings) for side in sides]
    order = sorted({*sides[0], *sides[1]}, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    held: set[str] = set()
    have = [0, 0]
    for group in order:
        if any(side[group] and have[place] < wanted[place] for place, side in enumerate(sides)):
            held.add(group)
            have = [before + side[group] for before, side in zip(have, sides, strict=True)]
    return frozenset(held)
