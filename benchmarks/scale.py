"""What a build and attacks gain and cost on Ray: results/scale.json. Each part is a run of its own.

rows      `--on ray` on one machine, and a cluster of three node processes, give the files of one process: rows_equal,
          ray_overhead, three_nodes_overhead
stream    the cluster's side alone, for more rows than one machine builds in an hour: rows_streamed, rows_per_s, memory
faults    a worker, a node and the driver are killed, each three times: faults_survived, paid_calls_repeated
speedup   one to eight workers behind a teacher that answers in a second: speedup_8_of_ideal
dedupe    near duplicates across blocks against those of one machine: dedupe_recall, dedupe_precision
million   how long those of a million rows take

    python benchmarks/scale.py --part rows|stream|faults|speedup|dedupe|million [--rows N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from forethought.data.shipped import shipped_requests
from forethought.metrics import Figure
from forethought.records import Request, user_request
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


def prompts(count: int, seed: int = 0, named: bool = False) -> Iterator[dict[str, object]]:
    """Innocuous rows, half of them labelled harmful; a few repeat an earlier one with a word or two changed.

    A third of the harmful ones has no category, unless all are `named`: the classifier finds its rule.
    """
    categories = _CATEGORIES[:-1] if named else _CATEGORIES
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
            "category": categories[number % len(categories)] if harmful else "",
        }


def write_prompts(file: Path, count: int, named: bool = False) -> Path:
    """The rows as JSON lines or, by the name, as Parquet."""
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(prompts(count, named=named))), file, row_group_size=5_000)
        return file
    with file.open("w", encoding="utf-8") as out:
        for row in prompts(count, named=named):
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
        for info in node.all_processes.get("raylet", ()):
            found += psutil.Process(info.process.pid).children()
    return [one for one in found if one.is_running() and "ray::_do" in " ".join(one.cmdline())]


class Watch(threading.Thread):
    """The memory of the largest worker over time."""

    def __init__(self, nodes: Any) -> None:
        super().__init__(daemon=True)
        self._nodes = nodes
        self.seen: list[float] = []
        """GiB, once a second."""
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(1.0):
            with suppress(psutil.Error):  # one that ends meanwhile
                if sizes := [one.memory_info().rss / 2**30 for one in workers_of(self._nodes)]:
                    self.seen.append(max(sizes))


def part_rows(rows: int, folder: Path) -> list[Figure]:
    """All on one processor, so that overhead is what Ray costs, and not less what further processors bring."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    file = write_prompts(folder / "rows.parquet", rows)
    alone = finished(start_build(file, folder / "alone", None))
    os.environ["RAY_ADDRESS"] = "local"  # a cluster of its own, whatever this machine belongs to
    on_ray = finished(start_build(file, folder / "ray", "ray"))
    del os.environ["RAY_ADDRESS"]
    _, on_nodes = _on_three_nodes(file, folder / "nodes")
    equal = what_came(folder / "alone") == what_came(folder / "ray") == what_came(folder / "nodes")
    return [
        Figure(name="rows_equal", value=float(equal), n=rows),
        Figure(name="ray_overhead", value=on_ray / alone - 1, n=rows),
        Figure(name="three_nodes_overhead", value=on_nodes / alone - 1, n=rows),
        Figure(name="rows_per_s_alone", value=rows / alone, unit="rows/s"),
        Figure(name="rows_per_s_on_ray", value=rows / on_ray, unit="rows/s"),
    ]


def part_stream(rows: int, folder: Path) -> list[Figure]:
    watch, seconds = _on_three_nodes(write_prompts(folder / "rows.parquet", rows), folder / "ray")
    half = len(watch.seen) // 2
    return [
        Figure(name="rows_streamed", value=rows, unit="rows"),
        Figure(name="rows_per_s", value=rows / seconds, unit="rows/s"),
        Figure(name="worker_gib_first_half", value=max(watch.seen[:half]), unit="GiB"),
        Figure(name="worker_gib_second_half", value=max(watch.seen[half:]), unit="GiB"),
    ]


def _on_three_nodes(file: Path, out: Path) -> tuple[Watch, float]:
    """(memory over time, seconds, the start of Ray in the driver included)."""
    with cluster(3) as nodes:
        watch = Watch(nodes)
        seconds = finished(start_build(file, out, nodes.address))
        watch.ended.set()
        watch.join()
    return watch, seconds


CONCURRENCY = 5
"""Calls of a teacher at once, of each block."""
_KILL_AT = 0.4
"""Share of all calls after which something is killed."""
_BLOCK = 50


def part_faults(rows: int, folder: Path) -> list[Figure]:
    file = write_prompts(folder / "rows.jsonl", rows, named=True)
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
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        return CONCURRENCY
    build.send_signal(signal.SIGKILL)
    build.wait()
    return CONCURRENCY * len(busy)


def part_speedup(rows: int, folder: Path) -> list[Figure]:
    """Seconds of the stage that asks, with workers that are up: eight of them start on two processors otherwise."""
    seconds = {workers: _asking(workers, rows, folder) for workers in (8, 1)}
    return [
        Figure(name="speedup_8_of_ideal", value=seconds[1] / seconds[8] / 8, n=rows),
        Figure(name="seconds_asking_1_worker", value=seconds[1], unit="s"),
        Figure(name="seconds_asking_8_workers", value=seconds[8], unit="s"),
    ]


def _asking(workers: int, rows: int, folder: Path) -> float:
    import ray

    import forethought as ft
    from forethought.cluster import OnRay
    from forethought.models.client import open_model

    file, out = write_prompts(folder / "rows.jsonl", rows, named=True), folder / f"workers{workers}"
    with server_process(1.0) as url:
        open_model(TEACHER, url)
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            OnRay().map(_warm, range(workers), url)
            asked = {"teacher": TEACHER, "base_url": url, "concurrency": CONCURRENCY, "price_in": 0, "price_out": 0}
            said = {"harmless": (str(file),), "twins": 0.0, "variants": 0} | asked
            ft.build(str(file), ft.BuildSettings.model_validate(said), out=out, on="ray")
        finally:
            ray.shutdown()
    manifest = json.loads((out / "2-evolve" / "manifest.json").read_text(encoding="utf-8"))
    return float(manifest["seconds"])


def _warm(number: int, url: str) -> int:
    import forethought.pipeline.evolve  # noqa: F401
    from forethought.models.client import open_model

    open_model(TEACHER, url)
    time.sleep(5)  # until the others are there, too
    return number


def part_dedupe(rows: int, folder: Path) -> list[Figure]:
    """Against the exact search of one machine."""
    from forethought.data.dedupe import repeated

    asked, found, _ = _deduped(rows, folder)
    exact = set(repeated(asked))
    return [
        Figure(name="dedupe_recall", value=len(found & exact) / len(exact), n=len(exact)),
        Figure(name="dedupe_precision", value=len(found & exact) / len(found), n=len(found)),
    ]


def part_million(rows: int, folder: Path) -> list[Figure]:
    """How long near duplicates take, on the processors of this machine."""
    _, _, seconds = _deduped(rows, folder)
    kinds = {"driver": resource.RUSAGE_SELF, "worker": resource.RUSAGE_CHILDREN}
    peak = {kind: resource.getrusage(who).ru_maxrss / 2**20 for kind, who in kinds.items()}
    return [
        Figure(name="dedupe_rows", value=rows, unit="rows"),
        Figure(name="dedupe_minutes", value=seconds / 60, unit="minutes"),
        *(Figure(name=f"dedupe_{kind}_gib", value=gib, unit="GiB") for kind, gib in peak.items()),
    ]


def _deduped(rows: int, folder: Path) -> tuple[list[Request], set[int], float]:
    import ray

    from forethought.cluster import OnRay
    from forethought.data.dedupe import repeated_across

    asked = [user_request(str(row["prompt"]), harmful=bool(row["is_harmful"])) for row in prompts(rows)]
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        began = time.monotonic()
        found = set(repeated_across(asked, OnRay(), folder))
        return asked, found, time.monotonic() - began
    finally:
        ray.shutdown()


PARTS: dict[str, tuple[Callable[[int, Path], list[Figure]], int]] = {
    "rows": (part_rows, 100_000),
    "stream": (part_stream, 1_000_000),
    "faults": (part_faults, 600),
    "speedup": (part_speedup, 2_000),
    "dedupe": (part_dedupe, 100_000),
    "million": (part_million, 1_000_000),
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
    # Before nodes are started: a worker has its node's environment.
    os.environ |= {"MOCK_API_KEY": "none", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
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
