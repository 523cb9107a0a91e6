"""What the machine offers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from forethought.models import machine, weights


def test_auto_is_the_faster_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "has_fast_bfloat16", lambda: True)
    assert weights.resolve_dtype("auto") is torch.bfloat16
    monkeypatch.setattr(weights, "has_fast_bfloat16", lambda: False)
    assert weights.resolve_dtype("auto") is torch.float32


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
