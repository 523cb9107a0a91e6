"""What is kept in the cache folder is made once, also by two who want it at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forethought.models.weights import load_or_make


def _load(folder: Path) -> str | None:
    file = folder / "whole"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def test_of_two_at_once_one_makes_and_the_other_waits(tmp_path: Path) -> None:
    started = threading.Barrier(2)
    made: list[str] = []

    def make(part: Path) -> str:
        made.append(part.name)
        part.mkdir()
        time.sleep(0.2)
        (part / "whole").write_text("kept", encoding="utf-8")
        return "made"

    def want() -> str:
        started.wait()
        return load_or_make(tmp_path / "new" / "model", _load, make)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(want), pool.submit(want)
        assert sorted([first.result(), second.result()]) == ["kept", "made"]
    assert made == ["model.part"]


def test_halves_of_a_killed_process_are_made_anew(tmp_path: Path) -> None:
    for left in ("model", "model.part"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "half").touch()

    def make(part: Path) -> str:
        assert not part.exists()
        part.mkdir()
        (part / "whole").touch()
        return "made"

    assert load_or_make(tmp_path / "model", _load, make) == "made"
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["whole"]
    assert not (tmp_path / "model.part").exists()


def test_what_cannot_be_made_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    def make(part: Path) -> str:
        part.mkdir()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        load_or_make(tmp_path / "model", _load, make)
    assert _load(tmp_path / "model") is None
