"""Other benchmarks, run as processes of their own by those that gather figures."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from forethought.manifest import without_place

ROOT = Path(__file__).resolve().parent.parent


def printed(name: str, *arguments: str) -> dict[str, Any]:
    """What a benchmark prints: one JSON object, after what it may say of its progress."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    found: dict[str, Any] = json.loads(shown[shown.index("{") :])
    return found


def given(name: str, options: argparse.Namespace) -> str:
    """The command that a benchmark was given, defaults spelled out; of a path its last part, which says enough."""
    words = []
    for key, value in vars(options).items():
        if value is None or value is False or value == []:
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{key.replace('_', '-')}", *(without_place(str(getattr(one, "name", one))) for one in values)]
    return shlex.join(["python", f"benchmarks/{name}", *words])
