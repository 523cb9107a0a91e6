"""Several cells of a sweep at once, each in a process with its share of cores, or a GPU of its own.

Workers run `forethought sweep FILE --only DEFENCE` and leave their stages in the sweep's folder. What they could not
finish the sweep itself does again afterwards, and says why.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from forethought.progress import Progress
from forethought.research.config import PROMPT, Sweep, lenders, wrapper_label

LOGS = "workers"
"""In the sweep's folder: what each worker printed."""
_PARENT = "FORETHOUGHT_PARENT"


def cells_for_workers(sweep: Sweep) -> list[str]:
    """Defences that workers may do. One that shares another's weights waits until those are there."""
    methods = [entry.label for entry in sweep.methods if not lenders(sweep, [entry.label])]
    return [*([PROMPT] if sweep.prompts else []), *map(wrapper_label, sweep.wrappers), *methods]


def run_workers(sweep: Sweep, file: Path, root: Path, n: int, progress: Progress) -> None:
    """Does the cells of a sweep with `n` processes at once; returns when all have ended, well or not."""
    labels = cells_for_workers(sweep)
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(n):
        slots.put(slot)
    (root / LOGS).mkdir(parents=True, exist_ok=True)

    def one(label: str) -> tuple[str, int, float]:
        slot, began = slots.get(), time.monotonic()
        try:
            command = [sys.executable, "-m", "forethought", "sweep", str(file), "--out", str(root), "--only", label]
            with (root / LOGS / f"{label}.log").open("w", encoding="utf-8") as log:
                done = subprocess.run(
                    [*command, "--yes"], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                    env=_environment(slot, n), check=False,
                )  # fmt: skip
            return label, done.returncode, time.monotonic() - began
        finally:
            slots.put(slot)

    with progress.bar("defences") as bar, ThreadPoolExecutor(n) as pool:
        bar.total(len(labels))
        for running in as_completed([pool.submit(one, label) for label in labels]):
            label, code, seconds = running.result()
            bar.advance(1)
            how = "done" if code == 0 else f"ended with {code}, see {LOGS}/{label}.log"
            progress.say(f"{label}: {how} [dim]({seconds:.0f} s)[/dim]")


def _environment(slot: int, n: int) -> Mapping[str, str]:
    """A worker's share of the machine: cores for each, and where there are GPUs, one of them."""
    own = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // n)), _PARENT: str(os.getpid())}
    devices = _gpus()
    if devices:
        own["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return {**os.environ, **own}


def _gpus() -> Sequence[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one for one in given.split(",") if one]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def end_with_parent(end: Callable[[int], None] = os._exit) -> None:
    """In a worker: ends it when the sweep that started it is gone, so that a killed sweep leaves nobody writing."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        end(1)

    threading.Thread(target=watch, daemon=True).start()
