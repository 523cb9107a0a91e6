"""The paired order of rows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from forethought.training.trainer import PairedSampler, paired_order


def _data(n: int, share: float) -> tuple[list[int], list[int]]:
    rng = random.Random(n)
    return [rng.randrange(20, 200) for _ in range(n)], [0 if index < n * share else 1 for index in range(n)]


def _batches(order: Sequence[int], size: int) -> list[Sequence[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.parametrize(
    ("n", "share", "size"), [(64, 0.5, 8), (101, 0.3, 16), (37, 0.7, 4), (7, 0.5, 16), (9, 1.0, 4)]
)
def test_each_row_stands_in_the_order_once(n: int, share: float, size: int) -> None:
    lengths, terms = _data(n, share)
    assert sorted(paired_order(lengths, terms, size, seed=3)) == list(range(n))


@pytest.mark.parametrize(("n", "share", "size"), [(64, 0.5, 8), (100, 0.3, 16), (101, 0.2, 8), (400, 0.9, 16)])
def test_each_batch_holds_both_terms_in_proportion(n: int, share: float, size: int) -> None:
    lengths, terms = _data(n, share)
    own_share = terms.count(0) / n
    for batch in _batches(paired_order(lengths, terms, size, seed=0), size):
        first = sum(terms[index] == 0 for index in batch)
        assert abs(first - own_share * len(batch)) <= 1
        if len(batch) == size:
            assert 0 < first < size


def test_order_depends_on_seed_alone() -> None:
    lengths, terms = _data(96, 0.5)
    assert paired_order(lengths, terms, 8, seed=1) == paired_order(lengths, terms, 8, seed=1)
    assert paired_order(lengths, terms, 8, seed=1) != paired_order(lengths, terms, 8, seed=2)


def test_short_batch_comes_last() -> None:
    """Else every batch after it would be made of two halves, and pair nothing."""
    lengths, terms = _data(45, 0.5)
    for seed in range(5):
        for batch in _batches(paired_order(lengths, terms, 8, seed), 8)[:-1]:
            assert {terms[index] for index in batch} == {0, 1}


def test_rows_of_a_batch_have_similar_lengths() -> None:
    lengths, terms = _data(512, 0.5)

    def padding(order: Sequence[int]) -> int:
        return sum(max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in _batches(order, 16))

    shuffled = list(range(512))
    random.Random(0).shuffle(shuffled)
    assert padding(paired_order(lengths, terms, 16, seed=0)) < 0.5 * padding(shuffled)


def test_sampler_has_another_order_each_epoch_and_the_same_again() -> None:
    lengths, terms = _data(64, 0.5)
    sampler, other = PairedSampler(lengths, terms, 8, seed=5), PairedSampler(lengths, terms, 8, seed=5)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    other.set_epoch(1)
    assert len(sampler) == 64
    assert first != second
    # A resumed run makes a new sampler and jumps to its epoch.
    assert list(other) == second
