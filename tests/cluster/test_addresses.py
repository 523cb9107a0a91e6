"""A real Ray cluster that asks for a token, by both of its addresses, and none at all. This process joins none."""

from __future__ import annotations

import operator
import sys

import pytest

from forethought.cluster import connect
from forethought.errors import ConfigError
from tests import child

pytestmark = pytest.mark.slow


def do_there() -> None:
    with connect(sys.argv[1]) as workers:
        assert workers.map(operator.mul, [3, 1, 2], 2) == [6, 2, 4]  # what a node has, too


def test_a_cluster_is_reached_by_either_address_with_its_token(ray_head: tuple[str, str]) -> None:
    for on in ray_head:  # one after the other: a client server that waits for a processor gives up
        assert child.Child(do_there, on).wait(180) == 0, on


@pytest.mark.parametrize("on", ["ray://127.0.0.1:1", "127.0.0.1:1"])
def test_where_no_cluster_answers_that_is_told(on: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="no cluster answers") as caught, connect(on):
        pass
    assert "RAY_AUTH_MODE=token" in caught.value.fix
