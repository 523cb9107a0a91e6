"""A part of a benchmark that stands for the whole: stratified, seeded, and nearly the same when rows are added."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from forethought.errors import ConfigError
from forethought.evals.benchmarks.records import Behavior


def sample(behaviors: Sequence[Behavior], n: int, seed: int, by: str = "category") -> list[Behavior]:
    """At most `n` behaviours, strata in proportion to their size, in the order in which they stand.

    `by`: what makes a stratum besides label and kind: `category`, `attack` or a tag, several joined
    by commas; empty for none. Places are divided by the method of Sainte-Laguë, so that a smaller
    sample is a part of every larger one of the same seed, and a stratum's share is within rounding of
    its share of the whole. Within a stratum the smallest hashes of seed and content are
    drawn: the order of rows and the names of files don't matter, and a row that is added
    changes at most the row it displaces and one place between strata. Translations and styles of one request share a
    hash, so that strata by language hold the same requests. Raises ConfigError for n below 1 and
    for a `by` that no behaviour has.
    """
    if n < 1:
        raise ConfigError(f"a sample of {n}", "is empty", "Draw at least 1")
    names = [name.strip() for name in by.split(",") if name.strip()]
    if len(behaviors) > 0:
        _check(behaviors, names)
    strata: dict[tuple[str, ...], list[tuple[str, str, int]]] = defaultdict(list)
    for place, behavior in enumerate(behaviors):
        stratum = tuple(behavior.says(name) for name in ("label", "kind", *names))
        strata[stratum].append((*_rank(behavior, seed), place))
    queue = [
        ((number + 0.5) / len(members), *member)
        for members in strata.values()
        for number, member in enumerate(sorted(members))
    ]
    return [behaviors[place] for place in sorted(entry[-1] for entry in sorted(queue)[:n])]


def _rank(behavior: Behavior, seed: int) -> tuple[str, str]:
    """Where a behaviour stands in its stratum: by its family, then by itself."""

    def digest(text: str) -> str:
        return hashlib.sha256(f"{seed}\x1f{text}".encode()).hexdigest()

    own = digest(f"{behavior.request.id}\x1f{behavior.request.operator or ''}")
    return (digest(behavior.request.family) if behavior.request.family else own), own


def _check(behaviors: Sequence[Behavior], names: Sequence[str]) -> None:
    tags = sorted({tag for behavior in behaviors for tag in behavior.tags})
    known = ["category", "label", "kind", "attack", *tags]
    for name in names:
        if name not in known:
            raise ConfigError(f"'{name}'", "is nothing that these behaviours have", f"Use one of {', '.join(known)}")
