"""What the documents claim: every number stands in a results file, every bash command runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = sorted((ROOT / "results").glob("*.json"))
_FIGURE_KEYS = {"name", "value", "low", "high", "n", "unscored", "unit"}


def _commands() -> list[str]:
    """The commands of all ```bash blocks; what needs minutes or the reader's own files stands in ```text blocks."""
    found: list[str] = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            found += [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
    return found


@pytest.mark.parametrize("command", _commands())
def test_a_documented_command_runs(command: str) -> None:
    assert command.startswith("forethought ")
    line = [sys.executable, "-m", "forethought", *command.split()[1:]]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_a_results_file_has_the_one_shape(path: Path) -> None:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert {"command", "commit", "date", "seeds", "machine", "versions", "inputs", "figures"} <= set(loaded)
    names = [figure["name"] for figure in loaded["figures"]]
    assert len(names) == len(set(names))
    for figure in loaded["figures"]:
        assert set(figure) == _FIGURE_KEYS
        if figure["low"] is not None:
            assert figure["low"] <= figure["value"] <= figure["high"]


@lru_cache(maxsize=1)
def _measured() -> set[str]:
    """Every value and interval end of the results, as documents round them."""
    numbers: set[str] = set()
    for path in RESULTS:
        for figure in json.loads(path.read_text(encoding="utf-8"))["figures"]:
            for key in ("value", "low", "high"):
                if figure[key] is not None:
                    numbers |= {f"{figure[key]:.{digits}f}" for digits in (0, 1, 2, 3)}
    return numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_decimal_number_stands_in_a_results_file(page: Path) -> None:
    """Numbers with a point are measurements; code, links, versions and quoted settings are left out."""
    left_out = r"Apache-2\.0|```.*?```|`[^`]*`|\]\([^)]*\)|arXiv \d+\.\d+|Python \d\.\d+"
    text = re.sub(left_out, "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    claimed = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text)
    assert [number for number in claimed if number not in _measured()] == []
