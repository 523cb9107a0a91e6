"""Other benchmarks, run as processes of their own by those that gather figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def printed(name: str, *arguments: str) -> dict[str, Any]:
    """What a benchmark prints: one JSON object, after what it may say of its progress."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    found: dict[str, Any] = json.loads(shown[shown.index("{") :])
    return found
