"""Fixtures that tests share. Nothing here needs a network, a GPU or a key."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 leaves its workers what the tests beside them do not take
_CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what a whole run shares; workers inherit it from the process that starts them."""
    if "FORETHOUGHT_TEST_RUN" not in os.environ:
        os.environ["FORETHOUGHT_TEST_RUN"] = tempfile.mkdtemp(prefix="forethought-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("FORETHOUGHT_TEST_RUN"), ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rooms with the longest tests first: whoever takes one of those last stands alone at the end."""
    items.sort(key=lambda item: {"research", "pipeline", "evaluation"}.isdisjoint(item.path.parts))


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
