"""A static suite against two servers, by one process and through Ray: `attempts_equal` of results/scale.json.

    python benchmarks/scale_attempts.py [--attempts 20000]

The servers are `forethought serve` on the tests' random model of two layers, with few tokens an answer: what is
measured is whether the rows are the same, and how fast the asking itself is. One server is killed on the way.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
from scale import cluster
from serve import served

from forethought.attacks.base import Attack
from forethought.attacks.catalogue import BY_RULE, DIRECT, parse_attack
from forethought.attempts.ask import judge_run, run_suite
from forethought.attempts.plan import make_plan
from forethought.attempts.records import Judged, read_judged
from forethought.data.behaviors import Behavior
from forethought.data.shipped import shipped_requests
from forethought.judges.catalogue import default_judge
from forethought.metrics import Figure
from forethought.model import load
from forethought.records import user_request
from forethought.report.results import write_results

N_ATTACKS = 10
TOKENS = 4
KILL_AT = 0.4
"""Share of the replies at which one server is killed."""


def behaviors(count: int) -> list[Behavior]:
    """Innocuous requests, each once; half of them stand for harmful ones."""
    texts = [request.text for request in shipped_requests("ordinary")]
    numbered = [f"{texts[n % len(texts)]} It is for reader number {n}." for n in range(count)]
    asked = [user_request(text, harmful=n % 2 == 0) for n, text in enumerate(numbered)]
    return [Behavior(id=one.id, benchmark="made", request=one) for one in asked]


def attacks() -> list[Attack]:
    """No attack, and the first of those by rule."""
    return [DIRECT, *[parse_attack(name) for name in BY_RULE[: N_ATTACKS - 1]]]


def ask(folder: Path, model: str, urls: list[str], on: str | None) -> float:
    """Asks and judges what was planned; returns the seconds that the asking took."""
    opened = load(model, base_url=urls, on=on)
    try:
        counts = run_suite(folder, opened.respondent, TOKENS)
    finally:
        opened.close()
    print(f"{folder.name}: {counts.model_dump()}", flush=True)
    judge_run(folder, default_judge())
    return counts.seconds


def rows(folder: Path) -> dict[str, Judged]:
    """By id, each attempt with what was said and found."""
    return {one.attempt.id: one for one in read_judged(folder, default_judge().name)}


def kill_late(folder: Path, conversations: int, pid: int, ended: threading.Event) -> None:
    """Kills a server once so many replies are there."""
    file = folder / "replies.jsonl"
    while not ended.wait(0.5):
        if file.is_file() and sum(1 for _ in file.open("rb")) >= KILL_AT * conversations:
            os.kill(pid, signal.SIGKILL)
            print("a server was killed", flush=True)
            return


def part_attempts(count: int, folder: Path) -> list[Figure]:
    """Asked twice: by this process, and by workers on two nodes, one server of theirs being killed."""
    os.environ.setdefault("FORETHOUGHT_TEST_RUN", str(folder))
    from tests.tiny import tiny_folder  # reads that variable

    asked = behaviors(count // N_ATTACKS)
    harmful = [one for one in asked if one.request.harmful]
    harmless = [one for one in asked if not one.request.harmful]
    alone, through = folder / "alone", folder / "ray"
    plans = [make_plan(one, attacks(), harmful, harmless) for one in (alone, through)]
    with ExitStack() as stack:
        servers = [stack.enter_context(served(str(tiny_folder()))) for _ in range(2)]
        urls = [f"{url}/v1" for url, _ in servers]
        model = f"openai-api/tiny/{httpx.get(f'{urls[0]}/models').json()['data'][0]['id']}"
        seconds_alone = ask(alone, model, urls, None)
        ended = threading.Event()
        killer = threading.Thread(target=kill_late, args=(through, plans[1].conversations, servers[1][1].pid, ended))
        with cluster(2) as nodes:
            killer.start()
            seconds = ask(through, model, urls, nodes.address)
        ended.set()
        killer.join()
        survived = servers[0][1].poll() is None and servers[1][1].poll() == -signal.SIGKILL
    if not survived:
        raise SystemExit("no server was killed on the way, or both ended")
    one, other = rows(alone), rows(through)
    equal = sum(found == other.get(key) for key, found in one.items())
    return [
        Figure(name="attempts_equal", value=equal / len(one), n=len(one)),
        Figure(name="attempts_unscored", value=sum(row.response is None for row in other.values()), n=len(other)),
        Figure(name="attempts_conversations", value=plans[0].conversations, unit="conversations"),
        Figure(name="attempts_asked_per_s", value=plans[0].conversations / seconds, unit="conversations/s"),
        Figure(name="attempts_asked_per_s_alone", value=plans[0].conversations / seconds_alone, unit="conversations/s"),
    ]


def main() -> None:
    """Measures, and writes the figures beside those of benchmarks/scale.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("results/scale.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = part_attempts(options.attempts, Path(folder))
    for figure in figures:
        print(figure.name, figure.value, flush=True)
    write_results(options.out, [0], {}, figures, keep=True)


if __name__ == "__main__":
    main()
