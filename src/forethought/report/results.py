"""`results/NAME.json`: figures with the command, seed, versions and machine that made them."""

from __future__ import annotations

import json
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
    keep: bool = False,
) -> None:
    """Writes a results file in the project's one shape.

    `inputs` maps a file or set to its hash. A figure that is not a number goes to
    `missing` with the reason: it is never written as a value. `command` None is this process's. With `keep` the other
    figures of a file that several commands write stay in it, and under `earlier` stands who made them.
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
    if keep and path.is_file():
        content |= _beside(json.loads(path.read_text(encoding="utf-8")), rows, absent)
    write_json(path, content | ({"missing": absent} if absent else {}))


def _beside(held: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], absent: dict[str, str]) -> dict[str, Any]:
    """What a file holds that is not measured anew, who made it, and `rows`; `absent` becomes what is in neither."""
    new = {row["name"] for row in rows} | set(absent)
    figures = [*(row for row in held["figures"] if row["name"] not in new), *rows]
    told = {name for part in held.get("earlier", ()) for name in part["figures"]}
    whose = {name: held[name] for name in ("command", "commit", "date", "seeds", "machine", "versions", "inputs")}
    last = whose | {"figures": [row["name"] for row in held["figures"] if row["name"] not in told]}
    stand = {row["name"] for row in figures} - new
    earlier = [
        part | {"figures": names}
        for part in (*held.get("earlier", ()), last)
        if (names := [name for name in part["figures"] if name in stand])
    ]
    absent |= {name: why for name, why in held.get("missing", {}).items() if name not in new}
    return {"figures": figures} | ({"earlier": earlier} if earlier else {})


def _rounded(value: float) -> float:
    """Four decimals; of numbers smaller than those can show, three digits, so that nothing small reads as zero.

    Below a millionth of a millionth it is noise of the arithmetic, and zero.
    """
    if abs(value) < 1e-12:
        return 0.0
    return round(value, 4) if abs(value) >= 0.001 else float(f"{value:.3g}")
