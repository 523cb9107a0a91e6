"""Memory that threads share."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes, threading
from forethought.models.machine import one_arena
{first}
met = threading.Barrier(4)
def work():
    held = [bytes(2000) for _ in range(50)]
    met.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[one.start() for one in threads], [one.join() for one in threads]
libc = ctypes.CDLL("libc.so.6")
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out), libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives threads memory of their own")
def test_threads_take_their_memory_from_one_place() -> None:
    def places(first: str) -> int:
        command = [sys.executable, "-c", _SCRIPT.format(first=first)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("<heap nr=")

    assert places("one_arena()") == 1 < places("")
