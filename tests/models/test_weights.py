"""What the machine offers, and what is made once on it, also by two who want it at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from forethought.errors import ModelError
from forethought.models import machine, weights
from forethought.models.weights import load_or_make, load_weights
from tests.tiny import tiny_folder


def test_auto_is_the_faster_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "has_fast_bfloat16", lambda: True)
    assert weights.resolve_dtype("auto") is torch.bfloat16
    monkeypatch.setattr(weights, "has_fast_bfloat16", lambda: False)
    assert weights.resolve_dtype("auto") is torch.float32


def test_a_large_model_is_read_in_two_bytes_where_the_processor_multiplies_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "has_fast_bfloat16", lambda: False)
    monkeypatch.setattr(weights, "batches_in_bfloat16", lambda: True)
    folder = str(tiny_folder())
    assert load_weights(folder, None, "auto").model.dtype is torch.float32
    monkeypatch.setattr(weights, "_LARGE", 1000)
    assert load_weights(folder, None, "auto").model.dtype is torch.bfloat16
    assert load_weights(folder, None, "float32").model.dtype is torch.float32
    monkeypatch.setattr(weights, "batches_in_bfloat16", lambda: False)
    assert load_weights(folder, None, "auto").model.dtype is torch.float32


def test_a_named_type_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "has_fast_bfloat16", lambda: False)
    assert weights.resolve_dtype("bfloat16") is torch.bfloat16
    assert weights.resolve_dtype("float32") is torch.float32


def test_device_follows_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert weights.device().type == "cpu"


def test_machine_is_json_and_names_no_host() -> None:
    found = machine.machine()
    assert set(found) == {"cpu", "cores", "memory_gib", "gpu", "bfloat16_fast"}
    assert found["cores"] >= 1
    assert found["memory_gib"] >= 1
    import platform

    assert platform.node() not in json.dumps(found) or len(platform.node()) < 4


def test_peak_memory_is_in_gib() -> None:
    """A Python process with torch is larger than 50 MiB and smaller than 1 TiB."""
    assert 0.05 < machine.peak_gib() < 1024


@pytest.mark.slow
def test_a_process_does_not_report_its_parents_peak() -> None:
    held = b"x" * (600 * 1024**2)
    code = "from forethought.models.machine import peak_gib; print(peak_gib())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert machine.peak_gib() > len(held) / 1024**3
    assert float(shown) < 0.3


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


def test_weights_that_may_not_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not "there are none", as libraries say. Root may read all, so that the answer is given here."""
    monkeypatch.setattr("os.access", lambda file, mode: False)
    with pytest.raises(ModelError, match=r"model\.safetensors.*may not be read by this user.*chmod a\+r"):
        load_weights(str(tiny_folder()), None, "float32")
