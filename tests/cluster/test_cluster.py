from __future__ import annotations

import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from forethought import cluster
from forethought.cluster import Workers, connect
from forethought.errors import ConfigError, InputError


def doubled(item: int, more: int) -> int:
    return 2 * item + more


def refused(item: int) -> int:
    if item == 3:
        raise InputError("row 3", "is malformed", "Mend it")
    return item


def killed_once(item: int, folder: Path) -> int:
    """Dies the first time that it does item 2."""
    if item == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        os._exit(1)
    return item


def test_here_the_results_come_in_order_and_each_is_told() -> None:
    told: list[tuple[int, int]] = []
    with connect(None) as workers:
        found = workers.map(doubled, [3, 1, 2], 1, on_result=lambda place, result: told.append((place, result)))
    assert found == [7, 3, 5]
    assert told == [(0, 7), (1, 3), (2, 5)]


@pytest.mark.parametrize("on", ["spark", "ray://", "ray://host", "host:", "host:port"])
def test_a_place_that_is_none_is_told_with_those_that_are(on: str) -> None:
    with pytest.raises(ConfigError, match="is no place to run") as caught, connect(on):
        pass
    assert "ray://HOST:PORT" in caught.value.fix


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="is not installed") as caught, connect("ray"):
        pass
    assert "forethought[ray]" in caught.value.fix


def test_where_a_cluster_of_its_own_does_not_come_up_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(ConfigError, match=r"no cluster came up here .*timed out"), connect("ray"):
        pass


def test_a_killed_cluster_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster._cluster_here() is None
    (tmp_path / "ray").mkdir()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address, encoding="utf-8")
        assert cluster._cluster_here() is None, "nobody listens"
        listening.listen()
        assert cluster._cluster_here() == address


def test_an_error_keeps_its_parts_on_its_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InputError(Path("a"), "is damaged", "Mend it")))
    assert (type(error), error.value, error.rule, error.fix) == (InputError, "a", "is damaged", "Mend it")


@pytest.fixture(scope="module")
def ray(ray_head: tuple[str, str]) -> Iterator[Workers]:
    with connect(ray_head[0]) as workers:
        yield workers


@pytest.mark.slow
def test_on_ray_the_results_are_those_of_one_machine(ray: Workers) -> None:
    told: list[int] = []
    assert ray.map(doubled, range(20), 1, on_result=lambda place, _: told.append(place)) == [
        doubled(item, 1) for item in range(20)
    ]
    assert sorted(told) == list(range(20))


@pytest.mark.slow
def test_on_ray_an_error_of_ours_is_raised_as_it_is(ray: Workers) -> None:
    with pytest.raises(InputError, match="row 3: is malformed"):
        ray.map(refused, range(5))


@pytest.mark.slow
def test_what_a_dead_worker_had_is_done_again(ray: Workers, tmp_path: Path) -> None:
    assert ray.map(killed_once, range(4), tmp_path) == [0, 1, 2, 3]
    assert (tmp_path / "died").exists()


def test_a_client_server_that_fails_once_is_asked_again_and_a_head_is_not() -> None:
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if len(asked) < 2:
            raise ConnectionError("ray client connection timeout")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        cluster._start(SimpleNamespace(init=init), f"ray://{address}")
        assert len(asked) == 2
        asked.clear()
        with pytest.raises(ConfigError, match="no cluster answers"):
            cluster._start(SimpleNamespace(init=init), address)
        assert len(asked) == 1
