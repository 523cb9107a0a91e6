"""`results/NAME.json`: figures with the command, seed, versions and machine that made them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.manifest import git_commit, now, this_command, versions, write_json
from forethought.metrics import Figure
from forethought.models.machine import machine


def write_results(
    path: Path,
    seeds: Sequence[int],
    inputs: Mapping[str, str],
    figures: Sequence[Figure],
    missing: Mapping[str, str] | None = None,
    command: str | None = None,
) -> None:
    """Writes a results file in the project's one shape.

    `inputs` maps a file or set to its hash. A figure that is not a number goes to
    `missing` with the reason: it is never written as a value. `command` None is this process's.
    """
    absent = dict(missing or {})
    rows: list[dict[str, Any]] = []
    for figure in figures:
        if math.isnan(figure.value):
            absent.setdefault(figure.name, "nothing was scored")
            continue
        row = figure.model_dump()
        rows.append({key: _rounded(value) if isinstance(value, float) else value for key, value in row.items()})
    content: dict[str, Any] = {
        "command": command or this_command(),
        "commit": git_commit(),
        "date": now(),
        "seeds": list(seeds),
        "machine": machine(),
        "versions": versions(),
        "inputs": dict(inputs),
        "figures": rows,
    }
    write_json(path, content | ({"missing": absent} if absent else {}))


def _rounded(value: float) -> float:
    """Four decimals; of numbers smaller than those can show, three digits, so that nothing small reads as zero.

    Below a millionth of a millionth it is noise of the arithmetic, and zero.
    """
    if abs(value) < 1e-12:
        return 0.0
    return round(value, 4) if abs(value) >= 0.001 else float(f"{value:.3g}")
