"""What several tests of sweeps share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from forethought.cli.app import app
from forethought.cli.terminal import console
from tests.tiny import briefly


@pytest.fixture(autouse=True, scope="package")
def _briefly() -> Iterator[None]:
    with briefly():
        yield


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process: one of its own takes ten seconds to start."""
    monkeypatch.setattr(console, "width", 200)

    def run(file: Path, out: Path, *more: str) -> Result:
        return CliRunner().invoke(app, ["sweep", str(file), "--out", str(out), *more])

    return run
