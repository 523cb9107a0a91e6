"""The catalogue of methods: it finds every file of its folder, and lists them without loading torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forethought.training import methods
from forethought.training.methods.catalogue import get_method
from tests.shell import run_here

NEW = """
from forethought.training.methods.base import TrainingMethod
from forethought.training.methods.base import reasoned

METHODS = (
    TrainingMethod(
        name="parrot", title="SCoT said twice", paper="ours", cost="as SCoT, twice", when_to_choose="never",
        rows=lambda material: 2 * reasoned(material),
    ),
)
"""


def test_a_new_method_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parrot.py").write_text(NEW, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    try:
        assert get_method("parrot").title == "SCoT said twice"
        assert "SCoT said twice" in run_here("train", "--list-methods").out
    finally:
        sys.modules.pop("forethought.training.methods.parrot")


def test_methods_are_listed_without_loading_torch() -> None:
    code = "import sys, forethought.training.methods.catalogue; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
