"""Blocks go to workers that hold something, each to its end, whoever is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forethought.cluster.holders import Done, Holders, Lost, Say
from forethought.errors import ModelError
from tests.cluster.inline import inline

HELD = 100


def held() -> int:
    return HELD


def added(of: int, block: int, say: Say) -> None:
    say(of + block)


def refusing(of: int, block: int, say: Say) -> None:
    if block == 3:
        raise ModelError("the model", "does not answer", "Wait")
    say(of + block)


def results(found: Iterator[tuple[Any, Any]]) -> dict[Any, Any]:
    """What was said of each block; a second time must say the same."""
    said: dict[Any, Any] = {}
    for block, what in found:
        assert isinstance(what, Done) or said.setdefault(block, what) == what
    return said


@pytest.mark.parametrize("cpus", [1, 2, 5])
def test_every_block_is_done_and_no_more_are_taken_than_workers_have_room_for(cpus: int) -> None:
    taken, most = 0, 0

    def blocks() -> Iterator[int]:
        nonlocal taken
        for number in range(20):
            taken += 1
            yield number

    done = 0
    with inline(cpus) as cluster:
        holders = Holders("ray", held)
        said = {}
        for block, what in holders.each(added, blocks()):
            most = max(most, taken - done)
            if isinstance(what, Done):
                done += 1
            else:
                said[block] = what
        holders.close()
    assert said == {number: HELD + number for number in range(20)}
    assert most <= 2 * cpus + 1
    assert (cluster.started, sorted(cluster.killed)) == (cpus, list(range(cpus)))


def test_one_block_starts_one_worker() -> None:
    with inline(8) as cluster:
        assert Holders("ray", held).one(added, 1) == HELD + 1
    assert cluster.started == 1


def test_blocks_of_a_lost_worker_go_to_another_less_what_was_said_of_them() -> None:
    with inline(2, lambda worker, step: worker == 0 and step == 1) as cluster:
        found = Holders("ray", held).each(added, range(1, 11), left=lambda block: -block)
        said = [what for _, what in found if not isinstance(what, Done)]
    again = [block for _, block in cluster.given if block < 0]
    assert 1 <= len(again) <= 2
    assert sorted(said) == sorted(HELD + block for block in {*range(1, 11)} - {-one for one in again} | {*again})
    assert cluster.started in (2, 3)


def test_a_block_that_every_worker_is_lost_with_is_lost_with_its_cause() -> None:
    with inline(1, lambda worker, step: step == 2) as cluster:
        found = list(Holders("ray", held).each(added, range(2)))
    assert [what for block, what in found if block == 0] == [HELD, Done()]
    lost = [what for block, what in found if block == 1]
    assert lost == [Lost("a worker was lost: The actor died")] or lost[-1] == Done()
    assert cluster.started <= 4


def test_what_can_not_be_opened_is_raised_at_once() -> None:
    def broken() -> int:
        raise ModelError("a folder", "holds no model", "Give a run")

    with inline(3), pytest.raises(ModelError, match="holds no model"):
        Holders("ray", broken).one(added, 1)


def test_workers_that_are_lost_before_they_work_end_the_run() -> None:
    with inline(2, lambda worker, step: True) as cluster, pytest.raises(Exception, match="was lost"):
        list(Holders("ray", held).each(added, range(5)))
    assert cluster.started <= 4


def test_a_block_that_fails_everywhere_is_lost_and_the_others_are_not() -> None:
    with inline(2):
        said = results(Holders("ray", held).each(refusing, [1, 2, 3, 4]))
    assert said == {1: 101, 2: 102, 3: Lost("does not answer"), 4: 104}


def test_where_nothing_ever_worked_that_is_raised() -> None:
    with inline(2), pytest.raises(ModelError, match="does not answer"):
        list(Holders("ray", held).each(refusing, [3, 3]))
