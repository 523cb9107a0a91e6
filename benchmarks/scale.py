"""What a build and attacks gain and cost on Ray: results/scale.json. Each part is a run of its own.

rows      a build on a cluster of three node processes gives the files of one machine: rows_equal, rows_per_s, memory
overhead  a build on a cluster of one processor against one without: ray_overhead
faults    a worker, a node and the driver are killed, each three times: faults_survived, paid_calls_repeated
speedup   one to eight workers behind a teacher that answers in a second: speedup_8_of_ideal
dedupe    near duplicates across blocks against those of one machine: dedupe_recall, dedupe_precision

    python benchmarks/scale.py --part rows|overhead|faults|speedup|dedupe [--rows N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from forethought.data.shipped import shipped_requests
from forethought.metrics import Figure
from forethought.report.results import write_results

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.mock_teacher import counts_of, server_process  # noqa: E402  (a script has no package)

RESULTS = Path("results/scale.json")
TEACHER = "openai-api/mock/teacher"
_CATEGORIES = ("Fraud", "Privacy", "Violence", "Hate speech", "Misinformation", "")
_FRAMES = (
    "How do I {} before the guests arrive?",
    "Tell me about {}.",
    "What is a good way to {}?",
    "Write a short note about {}.",
    "Explain {} to a visitor.",
    "Can you list three facts on {}?",
)
PLANTED = 0.05
"""Share of rows that are an earlier one with a word or two changed."""
_FILES = ("examples.jsonl", "dropped.jsonl", "dropped.json", "overlaps.json")
_COUNTS = ("1-select/removed.json", "2-evolve/lost.json")


def vocabulary() -> list[str]:
    """The words of the shipped ordinary requests: innocuous, and as rare and as common as words are."""
    text = " ".join(request.text for request in shipped_requests("ordinary"))
    return sorted(set(re.findall(r"[a-z]{4,}", text.lower())))


def prompts(count: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """Innocuous rows, half of them labelled harmful; a few repeat an earlier one with a word or two changed."""
    words, rng = vocabulary(), random.Random(seed)
    kept: dict[int, list[tuple[str, list[str]]]] = {0: [], 1: []}
    for number in range(count):
        harmful = number % 2
        if kept[harmful] and rng.random() < PLANTED:
            frame, said = rng.choice(kept[harmful])
            said = list(said)
            for _ in range(rng.choice((0, 1, 1, 2))):
                said[rng.randrange(len(said))] = rng.choice(words)
        else:
            frame, said = rng.choice(_FRAMES), [rng.choice(words) for _ in range(rng.randint(5, 14))]
            if len(kept[harmful]) < 10_000:
                kept[harmful].append((frame, said))
        yield {
            "prompt": frame.format(" ".join(said)),
            "response": "" if harmful else f"Here is what is known: {' '.join(said)}.",
            "is_harmful": harmful,
            "category": _CATEGORIES[number % len(_CATEGORIES)] if harmful else "",
        }


def write_prompts(file: Path, count: int, seed: int = 0) -> Path:
    """The rows as JSON lines or, by the name, as Parquet."""
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(prompts(count, seed))), file, row_group_size=5_000)
        return file
    with file.open("w", encoding="utf-8") as out:
        for row in prompts(count, seed):
            out.write(json.dumps(row) + "\n")
    return file


# A build in a process of its own, on a cluster of this process's making.


@contextmanager
def cluster(nodes: int, cpus: int = 1) -> Iterator[Any]:
    """Node processes on this machine; the head's does no work."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 * 2**20})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=cpus, object_store_memory=200 * 2**20)
        yield made
    finally:
        made.shutdown()


def start_build(file: Path, out: Path, on: str | None, url: str | None = None, block: int = 0) -> subprocess.Popen[str]:
    """This script as a driver: the rows of a file, harmful and harmless by their label."""
    said = {"file": str(file), "out": str(out), "on": on, "url": url, "block": block}
    return subprocess.Popen([sys.executable, __file__, "--drive", json.dumps(said)], text=True)


def drive(said: dict[str, Any]) -> None:
    """What such a process does."""
    import forethought as ft
    from forethought.pipeline import evolve

    if said["block"]:
        evolve.ASKED_ROWS = said["block"]
    asked = {"teacher": TEACHER, "base_url": said["url"], "concurrency": CONCURRENCY, "price_in": 0, "price_out": 0}
    settings = {"harmless": (said["file"],), "twins": 0.0, **(asked if said["url"] else {})}
    ft.build(said["file"], ft.BuildSettings.model_validate(settings), out=Path(said["out"]), on=said["on"])


def finished(build: subprocess.Popen[str]) -> float:
    """Seconds until it ended; stops the benchmark where it failed."""
    began = time.monotonic()
    if build.wait():
        raise SystemExit(f"a build failed with {build.returncode}")
    return time.monotonic() - began


def what_came(out: Path) -> dict[str, str]:
    """A hash of each file of rows, and the counts by cause."""
    rows = {name: hashlib.sha256((out / "dataset" / name).read_bytes()).hexdigest() for name in _FILES}
    return rows | {name: (out / name).read_text(encoding="utf-8") for name in _COUNTS}


def workers_of(nodes: Any) -> list[psutil.Process]:
    """Processes that do pieces of work, of the cluster's own raylets."""
    found = []
    for node in nodes.worker_nodes:
        for kind in ("raylet",):
            for info in node.all_processes.get(kind, ()):
                found += psutil.Process(info.process.pid).children()
    return [one for one in found if one.is_running() and "ray::_do" in " ".join(one.cmdline())]


class Watch(threading.Thread):
    """The resident memory of the largest worker, GiB, over time."""

    def __init__(self, nodes: Any) -> None:
        super().__init__(daemon=True)
        self._nodes, self.seen = nodes, list[float]()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(1.0):
            sizes = []
            for one in self._safe_workers():
                try:
                    sizes.append(one.memory_info().rss / 2**30)
                except psutil.Error:
                    continue
            if sizes:
                self.seen.append(max(sizes))

    def _safe_workers(self) -> list[psutil.Process]:
        try:
            return workers_of(self._nodes)
        except psutil.Error:
            return []


def part_rows(rows: int, folder: Path) -> list[Figure]:
    file = write_prompts(folder / "rows.parquet", rows)
    finished(start_build(file, folder / "alone", None))
    with cluster(3) as nodes:
        watch = Watch(nodes)
        watch.start()
        seconds = finished(start_build(file, folder / "ray", nodes.address))
        watch.ended.set()
    equal = what_came(folder / "alone") == what_came(folder / "ray")
    half = len(watch.seen) // 2
    return [
        Figure(name="rows_equal", value=float(equal), n=rows),
        Figure(name="rows_streamed", value=rows, unit="rows"),
        Figure(name="rows_per_s", value=rows / seconds, unit="rows/s"),
        Figure(name="worker_gib_first_half", value=max(watch.seen[:half]), unit="GiB"),
        Figure(name="worker_gib_second_half", value=max(watch.seen[half:]), unit="GiB"),
    ]


def part_overhead(rows: int, folder: Path) -> list[Figure]:
    file = write_prompts(folder / "rows.parquet", rows)
    alone = finished(start_build(file, folder / "alone", None))
    with cluster(1) as nodes:
        ray = finished(start_build(file, folder / "ray", nodes.address))
    return [
        Figure(name="ray_overhead", value=ray / alone - 1, n=rows),
        Figure(name="seconds_alone", value=alone, unit="s"),
        Figure(name="seconds_one_worker", value=ray, unit="s"),
    ]


CONCURRENCY = 10
"""Calls of a teacher at once, of each block."""
_KILL_AT = 0.4
"""Share of all calls after which something is killed."""
_BLOCK = 50


def part_faults(rows: int, folder: Path) -> list[Figure]:
    file = write_prompts(folder / "rows.jsonl", rows)
    with server_process(0.3) as url:
        finished(start_build(file, folder / "alone", None, url))
        calls = counts_of(url)["distinct"]
    expected, survived, repeated, in_flight = what_came(folder / "alone"), 0, 0, 0
    for kind in ("worker", "node", "driver"):
        for trial in range(3):
            with server_process(0.3) as url, cluster(3) as nodes:
                out = folder / f"{kind}{trial}"
                build = start_build(file, out, nodes.address, url, _BLOCK)
                while counts_of(url)["calls"] < _KILL_AT * calls:
                    time.sleep(0.1)
                lost = _kill(kind, nodes, build)
                if kind == "driver":
                    build = start_build(file, out, nodes.address, url, _BLOCK)
                finished(build)
                counts = counts_of(url)
            same = what_came(out) == expected
            again = counts["calls"] - counts["distinct"]
            print(f"{kind} {trial}: the same rows {same}, asked again {again} of at most {lost} in flight", flush=True)
            survived += same and again <= lost
            repeated, in_flight = repeated + again, in_flight + lost
    return [
        Figure(name="faults_survived", value=survived, n=9),
        Figure(name="paid_calls_repeated", value=repeated, n=9 * calls, unit="calls"),
        Figure(name="paid_calls_in_flight", value=in_flight, unit="calls"),
    ]


def _kill(kind: str, nodes: Any, build: subprocess.Popen[str]) -> int:
    """Kills one; returns how many calls can have been on their way in what died."""
    busy = workers_of(nodes)
    if kind == "worker":
        busy[0].send_signal(signal.SIGKILL)
        return CONCURRENCY
    if kind == "node":
        nodes.remove_node(nodes.worker_nodes and next(iter(nodes.worker_nodes)), allow_graceful=False)
        return CONCURRENCY
    build.send_signal(signal.SIGKILL)
    build.wait()
    return CONCURRENCY * len(busy)


def part_speedup(rows: int, folder: Path) -> list[Figure]:
    """Seconds of the stage that asks, with workers that are up: eight of them start on two processors otherwise."""
    import ray

    import forethought as ft
    from forethought.cluster import OnRay

    file = write_prompts(folder / "rows.jsonl", rows)
    seconds: dict[int, float] = {}
    for workers in (8, 1):
        with server_process(1.0) as url:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            try:
                OnRay().map(_warm, range(workers), url)
                out = folder / f"workers{workers}"
                asked = {"teacher": TEACHER, "base_url": url, "concurrency": CONCURRENCY, "price_in": 0, "price_out": 0}
                said = {"harmless": (str(file),), "twins": 0.0, "variants": 0} | asked
                ft.build(str(file), ft.BuildSettings.model_validate(said), out=out, on="ray")
            finally:
                ray.shutdown()
        manifest = json.loads((out / "2-evolve" / "manifest.json").read_text(encoding="utf-8"))
        seconds[workers] = manifest["seconds"]
    return [
        Figure(name="speedup_8_of_ideal", value=seconds[1] / seconds[8] / 8, n=rows),
        Figure(name="seconds_asking_1_worker", value=seconds[1], unit="s"),
        Figure(name="seconds_asking_8_workers", value=seconds[8], unit="s"),
    ]


def _warm(number: int, url: str) -> int:
    import forethought.pipeline.evolve  # noqa: F401
    from forethought.models.client import open_model

    open_model(TEACHER, url)
    time.sleep(5)  # until the others are there, too
    return number


def part_dedupe(rows: int, folder: Path) -> list[Figure]:
    import resource

    from forethought.cluster import connect
    from forethought.data.dedupe import repeated, repeated_across
    from forethought.records import user_request

    asked = [user_request(str(row["prompt"]), harmful=bool(row["is_harmful"])) for row in prompts(rows)]
    began = time.monotonic()
    exact = set(repeated(asked))
    alone = time.monotonic() - began
    with connect("ray") as workers:
        began = time.monotonic()
        found = set(repeated_across(asked, workers, folder))
        across = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        Figure(name="dedupe_recall", value=len(found & exact) / len(exact), n=len(exact)),
        Figure(name="dedupe_precision", value=len(found & exact) / len(found), n=len(found)),
        Figure(name="dedupe_rows", value=rows, unit="rows"),
        Figure(name="dedupe_seconds", value=across, unit="s"),
        Figure(name="dedupe_seconds_alone", value=alone, unit="s"),
        Figure(name="dedupe_driver_gib", value=peak, unit="GiB"),
    ]


PARTS: dict[str, tuple[Callable[[int, Path], list[Figure]], int]] = {
    "rows": (part_rows, 100_000),
    "overhead": (part_overhead, 100_000),
    "faults": (part_faults, 600),
    "speedup": (part_speedup, 2_000),
    "dedupe": (part_dedupe, 1_000_000),
}
"""By name what is measured, and with how many rows."""


def main() -> None:
    """Runs one part, and writes its figures beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=sorted(PARTS))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.drive:
        drive(json.loads(options.drive))
        return
    os.environ["MOCK_API_KEY"] = "none"  # before nodes are started: a worker has its node's environment
    part, rows = PARTS[options.part]
    rows = options.rows or rows
    with tempfile.TemporaryDirectory() as folder:
        figures = part(rows, Path(folder))
    for figure in figures:
        print(figure.name, figure.value, flush=True)
    command = f"python benchmarks/scale.py --part {options.part} --rows {rows}"
    write_results(options.out, [0], {}, figures, command=command, keep=True)


if __name__ == "__main__":
    main()
