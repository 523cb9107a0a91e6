"""A real Ray cluster that asks for a token, by its address for clients, and none at all. This process joins none."""

from __future__ import annotations

import operator
import sys
from pathlib import Path

import pytest

from forethought.cluster import connect
from forethought.errors import ConfigError
from tests import child

pytestmark = pytest.mark.slow


def do_there() -> None:
    with connect(sys.argv[1]) as workers:
        assert workers.map(operator.mul, [3, 1, 2], 2) == [6, 2, 4]  # what a node has, too


def test_a_cluster_is_reached_by_its_address_for_clients(ray_head: tuple[str, str], tmp_path: Path) -> None:
    """By that of its head work on a cluster is tested everywhere else."""
    told = tmp_path / "told.txt"
    assert child.Child(do_there, ray_head[1], err=told).wait(300) == 0, told.read_text(encoding="utf-8")


@pytest.mark.parametrize("on", ["ray://127.0.0.1:1", "127.0.0.1:1"])
def test_where_no_cluster_answers_that_is_told(on: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="no cluster answers") as caught, connect(on):
        pass
    assert "RAY_AUTH_MODE=token" in caught.value.fix
