"""What a threshold does on traffic from elsewhere, and when traffic has left what it was set on."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from forethought.errors import InputError
from forethought.measure.traffic import (
    DRIFT_LIMIT,
    TRAFFIC,
    Drift,
    Reference,
    Setting,
    Sources,
    Traffic,
    load_traffic,
    refused_at,
    set_across,
    threshold_or_highest,
    transfer,
)


def _sources(count: int, shift: float = 0.0, rows: int = 80) -> dict[str, list[float]]:
    """Sources of the same scores but for the last one, which lies higher."""
    rng = Random(0)
    found = {f"s{n}": [rng.gauss(0, 1) for _ in range(rows)] for n in range(count)}
    found[f"s{count - 1}"] = [score + shift for score in found[f"s{count - 1}"]]
    return found


def _set_on(limit: float) -> Setting:
    def threshold(sources: Sources) -> float:
        return threshold_or_highest(set_across(sources, limit), sources)

    return threshold


def test_no_source_is_refused_more_than_twice_the_limit() -> None:
    sources = _sources(6, shift=2.0)
    found = set_across(sources, 0.05)
    assert found.threshold is not None
    assert max(refused_at(scores, found.threshold) for scores in sources.values()) <= 0.1
    alone = set_across({"all": [score for scores in sources.values() for score in scores]}, 0.05)
    assert alone.threshold is not None
    assert found.threshold > alone.threshold  # together, the odd source is outvoted


def test_the_promise_is_about_ones_own_traffic_where_it_is_given() -> None:
    sources = _sources(4)
    own = [score - 3 for score in sources["s0"]]
    found = set_across({**sources, "log": own}, 0.05, own=own)
    assert found.n == len(own)
    assert found.threshold is not None
    assert max(refused_at(scores, found.threshold) for scores in sources.values()) <= 0.1


def test_like_sources_vouch_for_a_further_one_and_an_odd_one_is_named() -> None:
    alike = transfer(_sources(10), 2.0, _set_on(0.05))
    assert alike is not None
    assert alike.trusted
    assert alike.low <= alike.mean <= alike.high <= alike.bound
    assert "which held in" in str(alike)
    odd = transfer(_sources(10, shift=3.0), 2.0, _set_on(0.05))
    assert odd is not None
    assert odd.worst.name == "s9"
    assert odd.worst.left_out > 0.5
    assert odd.bound > 0.5


def test_few_sources_vouch_for_nothing_and_one_says_nothing() -> None:
    few = transfer(_sources(3), 2.0, _set_on(0.05))
    assert few is not None
    assert not few.trusted
    assert "NOT to be relied on" in str(few)
    assert "9 are needed" in str(few)
    assert transfer(_sources(1), 2.0, _set_on(0.05)) is None


def test_what_has_no_score_counts_as_refused() -> None:
    assert refused_at([None, 0.0, 3.0, 1.0], 2.0) == 0.5


@pytest.mark.parametrize(("shift", "drifted"), [(0.0, False), (1.0, True)])
def test_traffic_of_another_kind_is_told_by_its_scores(shift: float, drifted: bool) -> None:
    rng = Random(1)
    drift = Drift(Reference.of([rng.gauss(0, 1) for _ in range(400)]))
    drift.add(*(rng.gauss(shift, 1) for _ in range(199)), None)
    assert drift.index is None
    assert not drift.drifted
    drift.add(*(rng.gauss(shift, 1) for _ in range(301)))
    assert drift.index is not None
    assert (drift.index >= DRIFT_LIMIT) is drift.drifted is drifted


def test_only_the_latest_scores_count() -> None:
    rng = Random(2)
    drift = Drift(Reference.of([rng.gauss(0, 1) for _ in range(400)]), window=300)
    drift.add(*(rng.gauss(3, 1) for _ in range(300)))
    assert drift.drifted
    drift.add(*(rng.gauss(0, 1) for _ in range(300)))
    assert drift.seen == 300
    assert not drift.drifted


def test_it_is_kept_beside_the_threshold(tmp_path: Path) -> None:
    assert load_traffic(tmp_path) is None
    kept = Traffic(reference=Reference.of(list(range(100))), transfer=transfer(_sources(3), 2.0, _set_on(0.05)))
    kept.save(tmp_path)
    assert load_traffic(tmp_path) == kept
    (tmp_path / TRAFFIC).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        load_traffic(tmp_path)
