"""How much memory is used, and what machine made a figure. Loads no model library by itself."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def peak_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    # Not getrusage where there is better: its peak is that of the parent, until a child has used more.
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024**2
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(used) / (1024**3 if platform.system() == "Darwin" else 1024**2)


def release_memory() -> None:
    """Gives memory of models no longer used back to the system."""
    gc.collect()
    torch = sys.modules.get("torch")  # a stage without models never loads it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps freed memory and can be asked for it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def machine() -> dict[str, Any]:
    """What made a figure: processor, cores, memory in GiB, GPU. No host name and no path."""
    import torch

    from forethought.models.weights import has_fast_bfloat16

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "bfloat16_fast": has_fast_bfloat16(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        shown = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return shown.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
