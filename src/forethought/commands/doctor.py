"""`forethought doctor`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys

from forethought.commands.terminal import console


def doctor() -> int:
    """Prints what is there and what is missing; returns the exit code."""
    from forethought.manifest import versions
    from forethought.models.machine import machine
    from forethought.models.weights import INSTALL, cache_folder, wheel_file

    found = machine()
    lines = [
        ("Python", platform.python_version(), sys.version_info >= (3, 11), "Use Python 3.11 or newer"),
        *((name, version, True, "") for name, version in versions().items()),
        ("processor", f"{found['cpu']}, {found['cores']} cores, fast bfloat16: {found['bfloat16_fast']}", True, ""),
        ("GPU", str(found["gpu"] or "none: runs on the processor"), True, ""),
        ("memory", f"{found['memory_gib']} GiB", found["memory_gib"] >= 4, "The quickstart needs about 4 GiB"),
        (
            "disk",
            f"{shutil.disk_usage('.').free // 1024**3} GiB free",
            shutil.disk_usage(".").free > 3 * 1024**3,
            "Free 3 GiB",
        ),
        (
            "embedded model",
            "installed" if wheel_file() else "not installed",
            wheel_file() is not None,
            f"Run: {INSTALL}",
        ),
        ("model cache", str(cache_folder()), True, ""),
    ]
    for package, use in (
        ("vllm", "larger inference, in an environment of its own"),
        ("bitsandbytes", "QLoRA on a GPU"),
        ("lm_eval", "capability: pip install 'forethought[capability]'"),
        ("openai", "teachers and graders behind OpenAI-compatible servers: pip install 'forethought[openai]'"),
    ):
        there = importlib.util.find_spec(package) is not None
        lines.append((package, "installed" if there else f"not installed (optional: {use})", True, ""))
    for name, value, fine, fix in lines:
        mark = "[green]ok[/green]  " if fine else "[red]miss[/red]"
        console.print(f"{mark} {name}: {value}" + ("" if fine else f". {fix}"), highlight=False, soft_wrap=True)
    return 0 if all(fine for _, _, fine, _ in lines) else 1
