"""Samples that are fair."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from forethought.data.behaviors import Behavior, sample
from forethought.errors import ConfigError
from forethought.records import user_request
from tests.data.benchmarks.rows import (
    read,
    write_csv,
)


def made(category: str, count: int, harmful: bool | None = True, start: int = 0) -> list[Behavior]:
    return [
        Behavior(
            id=f"{category}{number}",
            benchmark="made",
            request=user_request(f"Tell me of {category} {number}", harmful=harmful, categories=(category,)),
        )
        for number in range(start, start + count)
    ]


def counts(behaviors: Sequence[Behavior]) -> dict[str, int]:
    return dict(Counter(behavior.says("category") for behavior in behaviors))


def test_strata_are_drawn_in_proportion() -> None:
    rows = made("a", 60) + made("b", 30) + made("c", 10)
    assert counts(sample(rows, 10, 0)) == {"a": 6, "b": 3, "c": 1}
    assert counts(sample(rows, 50, 0)) == {"a": 30, "b": 15, "c": 5}
    # Worked by hand: the largest of size / (drawn + 0.5). Size / (drawn + 1), d'Hondt's, would give 4, 2, 1.
    assert counts(sample(made("a", 53) + made("b", 24) + made("c", 23), 7, 0)) == {"a": 3, "b": 2, "c": 2}


def test_labels_and_kinds_are_strata_of_their_own() -> None:
    rows = made("a", 20) + made("a", 10, False, 20) + made("a", 10, None, 30)
    drawn = sample(rows, 8, 3, by="")
    assert Counter(one.request.harmful for one in drawn) == {True: 4, False: 2, None: 2}


def test_a_sample_depends_on_seed_and_content_and_not_on_order() -> None:
    rows = made("a", 40) + made("b", 40)
    ids = {one.id for one in sample(rows, 10, 1)}
    shuffled = random.Random(5).sample(rows, len(rows))
    assert {one.id for one in sample(shuffled, 10, 1)} == ids
    assert {one.id for one in sample(rows, 10, 2)} != ids
    assert [one.id for one in sample(rows, 10, 1)] == [one.id for one in rows if one.id in ids]


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    rows = made("a", 33) + made("b", 17) + made("c", 5) + made("d", 1)
    ids = [{one.id for one in sample(rows, n, 0)} for n in range(1, 58)]
    assert all(small < large for small, large in itertools.pairwise(ids[:56]))
    assert len(ids[-1]) == len(rows)


def test_an_added_row_changes_at_most_two_places() -> None:
    rows = made("a", 33) + made("b", 17) + made("c", 5)
    before = {one.id for one in sample(rows, 20, 0)}
    for category in ("a", "b", "c", "new"):
        after = {one.id for one in sample(made(category, 1, start=99) + rows, 20, 0)}
        assert len(before - after) <= 2


def test_every_seed_draws_every_row_equally_often() -> None:
    rows = made("a", 10) + made("b", 10)
    drawn = Counter(one.id for seed in range(400) for one in sample(rows, 4, seed))
    assert set(drawn) == {one.id for one in rows}
    assert all(45 <= count <= 118 for count in drawn.values())  # 80 expected, standard deviation 8


def test_languages_are_drawn_from_the_same_rows(tmp_path: Path) -> None:
    rows = [{"id": n, "en": f"Knot {n}?", "sw": f"Fundo {n}?", "it": f"Nodo {n}?"} for n in range(30)]
    found = read(write_csv(tmp_path / "multijail.csv", rows))
    drawn = sample(found.behaviors, 12, 0, by="language")
    assert Counter(one.says("language") for one in drawn) == {"en": 4, "sw": 4, "it": 4}
    assert len({one.request.family for one in drawn}) == 4


def test_a_sample_that_is_not_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        sample(made("a", 3), 0, 0)
    with pytest.raises(ConfigError, match="'colour'"):
        sample(made("a", 3), 1, 0, by="colour")
    assert sample([], 3, 0) == []
