"""A real Ray cluster that asks for a token, by both of its addresses, and none at all. This process joins none."""

from __future__ import annotations

import operator
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forethought.cluster import connect
from forethought.errors import ConfigError
from tests import child
from tests.tiny import new_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, str]]:
    """(address of the head, address for clients)."""
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [each.getsockname()[1] for each in (one, other)]
    ray = str(Path(sys.executable).with_name("ray"))
    said = ["--port", ports[0], "--ray-client-server-port", ports[1], "--num-cpus", 1, "--include-dashboard=false"]
    said += ["--min-worker-port", 0, "--max-worker-port", 0, "--block"]
    kept = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    kept["RAY_TMPDIR"] = str(new_folder())  # short: a socket's path has 107 bytes at most
    started = subprocess.Popen([ray, "start", "--head", *map(str, said)], env=kept, stdout=subprocess.DEVNULL)
    while not all(_is_open(port) for port in ports):
        assert started.poll() is None
        time.sleep(0.2)
    yield f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}"
    started.terminate()
    started.wait(timeout=60)


def _is_open(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def do_there() -> None:
    with connect(sys.argv[1]) as workers:
        assert workers.map(operator.mul, [3, 1, 2], 2) == [6, 2, 4]  # what a node has, too


def test_a_cluster_is_reached_by_either_address_with_its_token(head: tuple[str, str]) -> None:
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32}
    for on in head:
        assert child.Child(do_there, on, environment=environment).wait(90) == 0


@pytest.mark.parametrize("on", ["ray://127.0.0.1:1", "127.0.0.1:1"])
def test_where_no_cluster_answers_that_is_told(on: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="no cluster answers") as caught, connect(on):
        pass
    assert "RAY_AUTH_MODE=token" in caught.value.fix
