"""What a training may run on: this machine, as it is found, or a device that is named."""

from __future__ import annotations

import os
import time

from forethought.errors import ConfigError
from forethought.models.weights import batches_in_bfloat16
from forethought.records import Record
from forethought.research import PlanSettings
from forethought.yamlfile import shipped_yaml

_SIZE, _TIMES = 1024, 5
_REACHED_HERE = 0.6
"""Of what large matrices reach on a processor, training reaches so much: roughly what the quickstart's did."""


class Device(Record):
    """One device, as far as a plan needs it."""

    gib: float
    """Its memory."""
    tflops: float
    """Most operations a second that it does, in 10^12."""
    mfu: float = 0.35
    """Share of these that training reaches."""
    weight_bytes: int = 2
    """Of a frozen weight."""
    said: str = ""
    """What was assumed for its rate."""


def device(settings: PlanSettings) -> Device:
    """The device that settings name, else this machine. Raises ConfigError for a name that is not known."""
    known = shipped_yaml("research/devices.yaml", dict[str, Device])
    if settings.on is not None and settings.on not in known:
        raise ConfigError(f"--on {settings.on}", "there is no such device", f"Use {', '.join(known)}, or --tflops")
    here = settings.on is None and settings.tflops is None
    if settings.on is not None:
        found = known[settings.on]
    else:
        found = Device(gib=_memory_gib(), tflops=_measured_tflops() if here else 0.0, weight_bytes=_weight_bytes())
        if here and not _has_gpu():
            found = found.model_copy(update={"mfu": _REACHED_HERE})
    named = {"gib": settings.device_gib, "tflops": settings.tflops, "mfu": settings.mfu}
    found = found.model_copy(update={name: value for name, value in named.items() if value is not None})
    rate = f"{found.tflops:.3g} TFLOP/s a device at most, {found.mfu:.0%} of it reached"
    if here:
        rate += "; the rate is of matrices multiplied on this machine (another one: --on h100, or --tflops)"
    return found.model_copy(update={"said": rate})


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _weight_bytes() -> int:
    """Frozen weights of this machine's faster type."""
    return 2 if _has_gpu() or batches_in_bfloat16() else 4


def _memory_gib() -> float:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory) / 1024**3
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def _measured_tflops() -> float:
    """The best of a few products of matrices, in the type that this machine is faster in; well below a second."""
    import torch

    gpu = torch.cuda.is_available()
    kind = torch.bfloat16 if gpu or batches_in_bfloat16() else torch.float32
    size = 8 * _SIZE if gpu else _SIZE
    one = torch.ones(size, size, dtype=kind, device="cuda" if gpu else "cpu")
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        one @ one
        if gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(2 * size**3 / min(times) / 1e12)
