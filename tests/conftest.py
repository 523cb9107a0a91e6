"""Fixtures that tests share. Nothing here needs a network, a GPU or a key."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what a whole run shares; workers inherit it from the process that starts them."""
    if "FORETHOUGHT_TEST_RUN" not in os.environ:
        os.environ["FORETHOUGHT_TEST_RUN"] = tempfile.mkdtemp(prefix="forethought-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("FORETHOUGHT_TEST_RUN"), ignore_errors=True))


def pytest_collection_finish() -> None:
    """Sets what the imports made aside: with it, each of the hundreds of collections takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the development data in ../shared, which is absent")
    return folder
