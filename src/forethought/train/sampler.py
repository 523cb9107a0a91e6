"""An order of rows in which every batch pairs both terms of the loss and wastes little padding."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler


def paired_order(
    lengths: Sequence[int], terms: Sequence[int], batch_size: int, seed: int, window: int = 8
) -> list[int]:
    """Row indices in an order whose consecutive runs of `batch_size` are the batches.

    Each batch holds both terms in the data's own proportion (to one row), and rows of
    similar length: each term is shuffled and sorted by length within windows of `window`
    batches. The order of batches is random; a short batch comes last. Every row stands in
    the order exactly once.
    """
    rng = random.Random(seed)
    groups = [[index for index, own in enumerate(terms) if own == term] for term in sorted(set(terms))]
    for group in groups:
        rng.shuffle(group)
    n_batches = -(-len(lengths) // batch_size)
    edges = [min(batch * batch_size, len(lengths)) for batch in range(n_batches + 1)]
    # Rows of the first term up to each edge; the other term fills what is left of a batch.
    share = len(groups[0]) / len(lengths)
    first = [round(edge * share) for edge in edges]
    cuts = [first, [edge - own for edge, own in zip(edges, first, strict=True)]]
    for group, cut in zip(groups, cuts, strict=False):
        for start in range(0, n_batches, window):
            stop = min(start + window, n_batches)
            group[cut[start] : cut[stop]] = sorted(group[cut[start] : cut[stop]], key=lambda index: lengths[index])
    batches = [
        [index for group, cut in zip(groups, cuts, strict=False) for index in group[cut[number] : cut[number + 1]]]
        for number in range(n_batches)
    ]
    full = batches[:-1] if len(batches[-1]) < batch_size else batches
    rng.shuffle(full)
    rest = [] if full is batches else [batches[-1]]
    return [index for batch in [*full, *rest] for index in batch]


class PairedSampler(Sampler[int]):
    """Rows in paired order; depends on the seed and the epoch alone, so that a resumed run sees the same rows."""

    def __init__(self, lengths: Sequence[int], terms: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._terms, self._seed = lengths, terms, seed
        self._batch_size = batch_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(paired_order(self._lengths, self._terms, self._batch_size, self._seed * 1009 + self._epoch))

    def __len__(self) -> int:
        return len(self._lengths)
