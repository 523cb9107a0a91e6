"""Similar sets among millions, over blocks: MinHash with banding finds candidates (Broder 1997; Leskovec, Rajaraman and
Ullman, chapter 3), the exact similarity decides.

NumPy over whole chunks, since libraries do not fit here: datasketch and rensa keep one index in one process's memory,
datatrove and NeMo Curator read documents of their own and verify nothing.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from forethought.cluster import Workers, in_chunks
from forethought.manifest import replacing

BANDS, ROWS = 40, 5
"""Two sets of Jaccard similarity .75 share no band with a probability of 2 in 100,000; of .3, nearly always."""
_PAIRS = 200_000
"""Candidates that are verified at once: some 100 MB."""
Item = TypeVar("Item")
Hashes = NDArray[np.uint64]


class Sets(Protocol):
    """What is compared: two kinds of pieces, of which one set is made."""

    @property
    def words(self) -> frozenset[str]: ...

    @property
    def pairs(self) -> frozenset[str]: ...


class Similar(NamedTuple):
    """Sets, equal ones in one group, and which groups are similar."""

    group: NDArray[np.int64]
    """Of each set; groups are numbered by their first."""
    one: NDArray[np.int64]
    """Number of a group, and at the same place in the following what it has to do with another."""
    other: NDArray[np.int64]
    similarity: NDArray[np.float64]
    own_words: NDArray[np.int64]
    """Words that each of two has for itself, the fewer of the two."""


def similar_sets(
    rows: Sequence[Item],
    sets_of: Callable[[Sequence[Item]], Sequence[Sets]],
    threshold: float,
    workers: Workers,
    scratch: Path,
) -> Similar:
    """Which rows are alike, with files in the folder `scratch` that all workers see.

    `sets_of` turns some of the rows into sets. This process holds some 30 bytes a row, and the pairs.
    """
    folder = scratch / "bands"
    folder.mkdir(parents=True, exist_ok=True)
    chunks = in_chunks(workers, _hashed, rows, sets_of, folder)
    _, first, group = np.unique(np.concatenate([one.whole for one in chunks]), return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups by where they first stand
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order))
    group, first = numbers[group], first[order]
    files = _Files(folder, [one.key for one in chunks], np.cumsum([0, *(len(one.whole) for one in chunks)]))
    codes = np.unique(np.concatenate(workers.map(_candidates, range(BANDS), files, first)))
    slices = [codes[start : start + _PAIRS] for start in range(0, len(codes), _PAIRS)]
    verified = workers.map(_verified, slices, files, first, threshold)
    shutil.rmtree(folder)
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    one, other, similarity, own = (np.concatenate(column) for column in zip(none, *verified, strict=True))
    return Similar(group, one, other, similarity, own)


class _Chunk(NamedTuple):
    key: str
    """What its files are called by."""
    whole: Hashes
    """A hash of each set."""


class _Files(NamedTuple):
    """The pieces and bands of all chunks, on disk."""

    folder: Path
    keys: list[str]
    starts: NDArray[np.int64]
    """Rows before each chunk, and in the end all of them."""

    def load(self, chunk: int, name: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(self.folder / f"{self.keys[chunk]}-{name}.npy", mmap_mode="r")
        return found


def _hashed(rows: Sequence[Any], sets_of: Callable[[Sequence[Any]], Sequence[Sets]], folder: Path) -> _Chunk:
    hashes: list[int] = []
    ends = [0]
    for one in sets_of(rows):
        hashes += sorted({_hash(word) | 1 for word in one.words} | {_hash(pair) & ~1 for pair in one.pairs})
        ends.append(len(hashes))
    values, edges = np.array(hashes, np.uint64), np.array(ends, np.int64)
    whole = np.add.reduceat(_mixed(values), edges[:-1])
    key = hashlib.sha256(whole.tobytes()).hexdigest()[:16]
    for name, content in (("values", values), ("edges", edges), ("bands", _bands(values, edges))):
        with replacing(folder / f"{key}-{name}.npy", shared=True) as part, part.open("wb") as file:
            np.save(file, content)
    return _Chunk(key, whole)


def _hash(piece: str) -> int:
    """64 bits; the lowest is set for a word and clear for a pair."""
    return int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest(), "little")


def _mixed(values: Hashes) -> Hashes:
    """The last step of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _bands(values: Hashes, edges: NDArray[np.int64]) -> Hashes:
    """(bands, sets): what two sets have alike where all minima of the band are."""
    rng = np.random.default_rng(0)
    bands = np.zeros((BANDS, len(edges) - 1), np.uint64)
    for band in bands:
        for factor, offset in rng.integers(1, 2**63, (ROWS, 2), np.uint64):
            least = np.minimum.reduceat(values * (factor | np.uint64(1)) + offset, edges[:-1])
            band[:] = _mixed(band + least)
    return bands


def _candidates(band: int, files: _Files, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of groups that agree in a band, each as one number."""
    keys = np.concatenate([files.load(chunk, "bands")[band] for chunk in range(len(files.keys))])[first]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    found = [np.zeros(0, np.int64)]
    for apart in range(1, len(keys)):
        same = np.flatnonzero(keys[apart:] == keys[:-apart])
        if not len(same):
            break
        found.append(order[same] * len(first) + order[same + apart])  # in order: the sort is stable
    return np.concatenate(found)


def _verified(
    codes: NDArray[np.int64], files: _Files, first: NDArray[np.int64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """(one, other, similarity, own words) of the pairs that are similar enough."""
    one, other = np.divmod(codes, len(first))
    groups, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    values, lengths = _sets(files, first[groups])
    edges = np.cumsum([0, *lengths])
    words = np.add.reduceat((values & np.uint64(1)).astype(np.int64), edges[:-1])
    ids = np.unique(values, return_inverse=True)[1]
    # Both sets of a pair in one sorted list: what they share stands there twice.
    of_pair = np.tile(np.arange(len(codes)), 2)
    pieces = np.repeat(edges[places] - np.cumsum([0, *lengths[places][:-1]]), lengths[places])
    pieces += np.arange(len(pieces))
    listed = (
        np.repeat(of_pair, lengths[places]) << 32 | ids[pieces] << 1 | (values[pieces] & np.uint64(1)).astype(np.int64)
    )
    listed.sort()
    twice = listed[1:][listed[1:] == listed[:-1]]
    shared = np.bincount(twice >> 32, minlength=len(codes))
    shared_words = np.bincount(twice >> 32, weights=twice & 1, minlength=len(codes)).astype(np.int64)
    a, b = places[: len(codes)], places[len(codes) :]
    similarity = shared / (lengths[a] + lengths[b] - shared)
    own = np.minimum(words[a], words[b]) - shared_words
    kept = similarity >= threshold
    return one[kept], other[kept], similarity[kept], own[kept]


def _sets(files: _Files, rows: NDArray[np.int64]) -> tuple[Hashes, NDArray[np.int64]]:
    """(the pieces of some rows, one row after the other; how many each has); the rows are in order."""
    chunks = np.searchsorted(files.starts, rows, side="right") - 1
    parts, lengths = [], []
    for chunk in np.unique(chunks):
        here = rows[chunks == chunk] - files.starts[chunk]
        values, edges = files.load(chunk, "values"), files.load(chunk, "edges")
        parts += [values[edges[row] : edges[row + 1]] for row in here]
        lengths.append(edges[here + 1] - edges[here])
    return np.concatenate(parts), np.concatenate(lengths)
