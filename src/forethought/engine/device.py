"""Which device and which number type this machine is best used with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

DType = Literal["auto", "float32", "bfloat16"]


def has_fast_bfloat16() -> bool:
    """True on a GPU with bfloat16, or a processor with matrix units for it (Intel AMX).

    Elsewhere bfloat16 is emulated and slower than float32.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "amx_bf16" in cpuinfo.read_text(encoding="utf-8", errors="replace")


def resolve_dtype(dtype: DType) -> torch.dtype:
    """The torch type for a setting; `auto` is the faster one on this machine."""
    if dtype == "auto":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def device() -> torch.device:
    """The device that models run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
