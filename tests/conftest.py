"""Fixtures that tests share. Nothing here needs a network, a GPU or a key."""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 32}
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 leaves its workers what the tests beside them do not take
_OF_A_NODE = ("raylet", "gcs_server", "dashboard_agent", "runtime_env_agent", "python-core-driver")
_CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what a whole run shares; workers inherit it from the process that starts them."""
    if "FORETHOUGHT_TEST_RUN" not in os.environ:
        os.environ["FORETHOUGHT_TEST_RUN"] = tempfile.mkdtemp(prefix="forethought-tests-")
        config.add_cleanup(_end_run)


def _end_run() -> None:
    folder = Path(os.environ.pop("FORETHOUGHT_TEST_RUN"))
    if (folder / "head" / "head.json").is_file():
        head = psutil.Process(json.loads((folder / "head" / "head.json").read_text(encoding="utf-8"))["pid"])
        head.terminate()
        head.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    """A driver ends without a word when its node does: the node's own logs say why."""
    for log in sorted(Path(os.environ["FORETHOUGHT_TEST_RUN"]).glob("ray/session_2*/logs/*")):
        if log.suffix in (".out", ".err", ".log") and log.name.startswith(_OF_A_NODE) and log.stat().st_size:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
            report.longrepr = "\n".join([str(report.longrepr), f"-- {log.name}", *last])


@pytest.hookimpl(trylast=True)  # of those that were chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker begins with an equal part of the list, and who is done takes from the end of another's.

    So each part has long tests first, file by file, and short ones last: whoever takes a long one last stands alone at
    the end. Long are those of three rooms, and slow ones without a browser.
    """
    parts: list[list[pytest.Item]] = [[] for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))]
    longest = sorted(filter(_is_long, items), key=_is_elsewhere)
    short = [item for item in items if not _is_long(item)]
    share = len(items) // len(parts)
    for _, tests in itertools.groupby(longest, key=lambda item: item.path):
        min(parts, key=len).extend(tests)
    for part in parts:
        room = max(share - len(part), 0)
        part += short[:room]
        del short[:room]
    items[:] = [*itertools.chain(*parts), *short]


def _is_elsewhere(item: pytest.Item) -> bool:
    """In none of the rooms with the longest tests."""
    return {"research", "pipeline", "evaluation"}.isdisjoint(item.path.parts)


def _is_long(item: pytest.Item) -> bool:
    if item.get_closest_marker("slow") is None:
        return not _is_elsewhere(item)
    return "chromium" not in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Sets what the imports made aside: with it, each of the hundreds of collections takes half a second."""
    if len(session.items) > 1000 or any(item.get_closest_marker("slow") for item in session.items):
        importlib.import_module("tests.imported")  # so many import it all sooner or later, and so do whole sweeps
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _set_aside() -> Iterator[None]:
    """So is what a module leaves, such as texts that are read once a process."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the development data in ../shared, which is absent")
    return folder


@pytest.fixture(scope="session")
def ray_head() -> tuple[str, str]:
    """(HOST:PORT of its head, address for clients) of a real cluster of one worker, which asks for a token: one for all
    tests of a run, which ends it. Nobody kills its nodes."""
    from tests.tiny import made_once

    pytest.importorskip("ray")
    said = json.loads((made_once("head", _start_ray) / "head.json").read_text(encoding="utf-8"))
    return said["address"], f"ray://{said['clients']}"


def _start_ray(folder: Path) -> None:
    # Below those that the kernel gives away: Ray's own processes take dozens of these while they begin.
    ports = random.sample([port for port in range(20000, 23000) if not _is_open(port)], 2)
    said = ["--port", ports[0], "--ray-client-server-port", ports[1], "--num-cpus", 1, "--include-dashboard=false"]
    said += ["--min-worker-port", 0, "--max-worker-port", 0, "--block"]
    # A node's own: keys are never sent. Its folder is short, since a socket's path has 107 bytes at most.
    own = {"MOCK_API_KEY": "none", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": os.environ["FORETHOUGHT_TEST_RUN"]}
    own["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = "20"  # what has not begun by then hangs since it was forked
    # On a machine that is busy a node and its agent answer late, and are taken for dead.
    own |= {"RAY_health_check_failure_threshold": "20", "RAY_agent_register_timeout_ms": "300000"}
    head = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), "start", "--head", *map(str, said)],
        env={**os.environ, **own}, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    addresses = [f"127.0.0.1:{port}" for port in ports]
    while not all(_is_open(port) for port in ports):
        assert head.poll() is None
        time.sleep(0.2)
    told = dict(zip(("address", "clients", "pid"), (*addresses, head.pid), strict=True))
    folder.mkdir()
    (folder / "head.json").write_text(json.dumps(told), encoding="utf-8")


def _is_open(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for the tests of a module. As long as it is there, its event loop runs, and no other can."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=_CHROMIUM)
        yield browser
        browser.close()
