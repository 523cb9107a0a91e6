"""What a run keeps opens in `inspect view`, in real Chromium."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forethought as ft
from tests.evaluation.test_acceptance import HELP, REFUSAL, files, refusing


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[str]:
    """The address at which `inspect view` shows the folder of an attack."""
    traffic, harmful = files(tmp_path, 2)
    settings = ft.AttackSettings(attacks=("direct",), benchmarks=(harmful,), harmless=(traffic,), n=2)
    ft.attack(refusing(), settings, out=tmp_path / "run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [Path(sys.executable).with_name("inspect"), "view", "--log-dir", tmp_path / "run"]
    with subprocess.Popen(
        [*program, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.mark.slow
def test_an_attempt_is_read_with_its_verdict(viewer: str, chromium: Any) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(viewer, timeout=5).close()
            break
        except urllib.error.URLError:
            assert time.monotonic() < until
            time.sleep(0.2)
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    page.goto(viewer)
    page.get_by_text(re.compile("^direct/")).first.click()
    page.get_by_role("tab", name="Scoring").first.wait_for()
    text = page.inner_text("body")
    assert any(said in text for said in (HELP, REFUSAL))
    assert any(verdict in text for verdict in ("refused", "complied"))
    page.close()
