"""Near duplicates over chunks, by MinHash with banding: what one machine finds by the exact search."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from forethought import cluster
from forethought.data import banding
from forethought.data.dedupe import decontaminate, repeated, repeated_across
from forethought.records import Request, user_request
from tests.pipeline.shuffled import Shuffled

WORDS = [a + b for a in ("bar", "len", "mos", "tir", "vud", "kel") for b in ("an", "ob", "ir", "esk", "ul", "yt", "ad")]


def planted(count: int, seed: int = 0) -> list[Request]:
    """Requests of random words; a third repeat an earlier one whole, with a word changed, or under the other label."""
    rng, rows = random.Random(seed), list[Request]()
    for _ in range(count):
        said = [rng.choice(WORDS) for _ in range(rng.randint(4, 12))]
        harmful = rng.random() < 0.5
        if rows and rng.random() < 0.35:
            earlier = rng.choice(rows)
            said, harmful = earlier.text.split(), bool(earlier.harmful) if rng.random() < 0.8 else harmful
            if rng.random() < 0.7:
                said[rng.randrange(len(said))] = rng.choice(WORDS)
        rows.append(user_request(" ".join(said), harmful=harmful))
    return rows


@pytest.mark.parametrize("size", [1, 37, 1000])
def test_what_one_machine_finds_is_found_across_chunks(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.in_chunks, "__kwdefaults__", {"size": size})
    monkeypatch.setattr(banding, "_PAIRS", 50)
    rows = planted(300 if size > 1 else 60)
    exact = repeated(rows)
    assert len(exact) > len(rows) / 10
    assert repeated_across(rows, Shuffled(), tmp_path) == exact
    assert list(tmp_path.iterdir()) == []


def test_forms_of_one_seed_stay_and_copies_of_them_go(tmp_path: Path) -> None:
    seed = user_request("How do I splice a thick rope to a thin one?", harmful=False)
    forms = [seed, seed.restyled("Yo, splice ropes how?", "slang"), seed.restyled("Splice, if you please.", "polite")]
    rows = [*forms, forms[1], seed]
    assert repeated_across(rows, Shuffled(), tmp_path) == repeated(rows)
    assert set(repeated(rows)) == {3, 4}


def test_nothing_is_no_duplicate(tmp_path: Path) -> None:
    assert repeated_across([], Shuffled(), tmp_path) == {}
    one = [user_request("Describe a quiet harbour in winter.", harmful=False)]
    assert repeated_across(one, Shuffled(), tmp_path) == {}


def test_a_set_is_cleaned_the_same_across_chunks(tmp_path: Path) -> None:
    rows, tested = planted(200), {"tested": planted(260)[::3], "more": planted(50, seed=1)}
    assert decontaminate(rows, tested, Shuffled(), tmp_path) == decontaminate(rows, tested)
