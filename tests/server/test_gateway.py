"""The gateway before a server that speaks vLLM's API: the embedded engine's decisions, through failures."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.chat import encode_prompt
from forethought.defences.base import logit
from forethought.errors import InputError, ModelError
from forethought.measure.probe import Probe, ProbeSettings
from forethought.model import load, write_run_model
from forethought.models.settings import read_settings, write_settings
from forethought.policy import default_policy
from forethought.records import Message
from forethought.server import gateway, upstreams
from forethought.server.config import Settings
from forethought.server.embedded import ModelEngine
from forethought.server.gateway import ALONE, GatewayEngine
from forethought.server.records import Asked, Options, Verdict
from tests.defences.test_fused import _fusion as made_fusion
from tests.server.live import live
from tests.server.mock_vllm import MockVllm
from tests.server.test_embedded import ASKS
from tests.tiny import tiny_adapter, tiny_folder, tiny_tokenizer

N = 6
SETTINGS = Settings(refusal_tokens=N, fail_closed=False)


def asked(text: str, **more: Any) -> Asked:
    return Asked(messages=(Message(role="user", content=text),), **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_adapter(tmp_path_factory.mktemp("adapter"), think_budget=6)
    tiny_tokenizer().save_pretrained(folder)  # as training does
    found: Any = load(folder, dtype="float32").reply_all(ASKS, 1)
    below, above = sorted(logit(one.probability) for one in found)[len(ASKS) // 2 - 1 :][:2]
    write_settings(folder, read_settings(folder).model_copy(update={"threshold": (below + above) / 2}))
    return folder


@pytest.fixture
def upstream(folder: Path) -> Iterator[tuple[MockVllm, str]]:
    local = load(folder, dtype="float32").local
    assert local is not None
    mock = MockVllm(local)
    with live(mock.app) as url:
        yield mock, url


async def all_of(engine: Any) -> list[tuple[Verdict, str]]:
    async def one_of(text: str) -> tuple[Verdict, str]:
        verdict = await engine.think(asked(text))
        pieces = (
            [] if verdict.refused else [one async for one in engine.answer(asked(text), verdict, Options(max_tokens=N))]
        )
        return verdict, "".join(piece.text for piece in pieces)

    found = await asyncio.gather(*map(one_of, ASKS))
    await engine.close()
    return found


def test_it_decides_as_the_embedded_engine(folder: Path, upstream: tuple[MockVllm, str]) -> None:
    _, url = upstream
    embedded = asyncio.run(all_of(ModelEngine(load(folder, dtype="float32"), SETTINGS)))
    gateway = asyncio.run(all_of(GatewayEngine(folder, [url], SETTINGS)))
    for (expected, answer), (verdict, text) in zip(embedded, gateway, strict=True):
        assert verdict.decision == expected.decision
        assert verdict.score == pytest.approx(expected.score, abs=1e-3)
        assert text.strip() == answer
        assert (verdict.thought, verdict.cause) == (expected.thought, expected.cause)
    assert {verdict.decision for verdict, _ in gateway} == {"refuse", "comply"}


def test_each_model_is_asked_where_it_is_held(folder: Path, upstream: tuple[MockVllm, str]) -> None:
    whole, url = upstream
    alone = MockVllm(whole.model, ["base"]), MockVllm(whole.model, ["scot"])
    with live(alone[0].app) as base, live(alone[1].app) as adapter:
        apart = asyncio.run(all_of(GatewayEngine(folder, [base, adapter], SETTINGS)))
    assert [(verdict.decision, text) for verdict, text in apart] == [
        (verdict.decision, text) for verdict, text in asyncio.run(all_of(GatewayEngine(folder, [url], SETTINGS)))
    ]
    assert [{call["model"] for call in mock.calls} for mock in alone] == [{"base"}, {"scot"}]


def test_one_thread_tells_tokens(folder: Path, upstream: tuple[MockVllm, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer keeps megabytes of words for each thread that asks it, apart."""
    telling: set[str] = set()

    def noted(*given: Any) -> list[int]:
        telling.add(threading.current_thread().name)
        return encode_prompt(*given)

    monkeypatch.setattr(gateway, "encode_prompt", noted)
    engine = GatewayEngine(folder, [upstream[1]], SETTINGS)

    async def at_once() -> None:
        await asyncio.gather(*[engine.think(asked(text)) for text in ASKS])
        await engine.close()

    asyncio.run(at_once())
    assert telling == {"tokens_0"}


@pytest.fixture(scope="module")
def fused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose defence reads states of the trained weights: of the request, and of the intent that is stated."""
    run = tmp_path_factory.mktemp("run")
    shutil.copytree(folder, run / "5-train")
    local, numbers = load(folder, dtype="float32").local, np.random.default_rng(0)
    assert local is not None
    settings = ProbeSettings(
        model="tiny", trained=True, layer=1, rule_layer=2, policy=default_policy(), rules=("R4", "R13"), threshold=0.5,
        auroc_dev=1.0, strength=0.1, rows={},
    )  # fmt: skip
    weights = numbers.normal(size=(3, local.base_weights.config.hidden_size)).astype(np.float32)
    probe = Probe.fitted(settings, weights, np.zeros(3, np.float32), local)
    write_run_model(run, str(tiny_folder()), run / "5-train", f"fused:{run / '8-fuse'} | unforged")
    threshold = 0.0
    for _ in range(2):  # in the middle, once it is known where that is
        made_fusion(threshold=threshold, reads_intent=True, intent_weight=0.25).save(run / "8-fuse", probe)
        found: Any = load(run, dtype="float32").reply_all(ASKS, 1)
        threshold = float(np.median([logit(one.probability) for one in found]))
    return run


def test_a_probe_decides_upstream_as_here(fused: Path, upstream: tuple[MockVllm, str]) -> None:
    mock, url = upstream
    mock.layers = (2, 1)
    embedded = asyncio.run(all_of(ModelEngine(load(fused, dtype="float32"), SETTINGS)))
    gateway = asyncio.run(all_of(GatewayEngine(fused, [url], SETTINGS)))
    for (expected, answer), (verdict, text) in zip(embedded, gateway, strict=True):
        assert verdict.score == pytest.approx(expected.score, abs=1e-3)
        same = {"score": 0, "probability": 0, "after": (), "refusal_tokens": 0}
        assert verdict.model_copy(update=same) == expected.model_copy(update=same)
        assert text.strip() == answer
    assert {verdict.decision for verdict, _ in gateway} == {"refuse", "comply"}


def test_without_states_the_verdict_decides_and_says_so(fused: Path, upstream: tuple[MockVllm, str]) -> None:
    _, url = upstream
    embedded = asyncio.run(all_of(ModelEngine(load(fused, defence="unforged", dtype="float32"), SETTINGS)))
    gateway = asyncio.run(all_of(GatewayEngine(fused, [url], SETTINGS)))
    for (expected, _), (verdict, _) in zip(embedded, gateway, strict=True):
        assert (verdict.decision, verdict.limit) == (expected.decision, expected.limit)
        assert ALONE in verdict.cause


@pytest.mark.parametrize("wrong", ["layers", "weights"])
def test_states_of_other_layers_or_weights_decide_nothing(
    fused: Path, upstream: tuple[MockVllm, str], tmp_path: Path, wrong: str
) -> None:
    mock, url = upstream
    mock.layers = (1,) if wrong == "layers" else (1, 2)
    run = shutil.copytree(fused, tmp_path / "run")
    write_run_model(run, str(tiny_folder()), run / "5-train", f"fused:{run / '8-fuse'}")
    if wrong == "weights":
        file = run / "8-fuse" / "probe.json"
        said = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(said | {"reference": [one + 2 for one in said["reference"]]}), encoding="utf-8")

    async def ask() -> str:
        engine = GatewayEngine(run, [url], SETTINGS)
        try:
            with pytest.raises(ModelError):
                await engine.think(asked(ASKS[0]))
            return await engine.ready()
        finally:
            await engine.close()

    assert wrong in asyncio.run(ask())


def test_calls_that_fail_are_made_again_elsewhere(folder: Path, upstream: tuple[MockVllm, str]) -> None:
    mock, url = upstream
    mock.fails = 2

    async def ask() -> Verdict:
        engine = GatewayEngine(folder, ["http://127.0.0.1:9", url], SETTINGS)
        try:
            assert await engine.ready() == ""
            return await engine.think(asked(ASKS[0]))
        finally:
            await engine.close()

    assert asyncio.run(ask()).score is not None


def test_an_upstream_that_comes_back_is_asked_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "_WAIT_S", 0.01)
    local = load(folder, dtype="float32").local
    assert local is not None
    app = MockVllm(local).app

    async def ask() -> list[Verdict]:
        with live(app) as url:
            port, engine = int(url.rpartition(":")[2]), GatewayEngine(folder, [url], SETTINGS)
            found = [await engine.think(asked(ASKS[0]))]
        try:
            with pytest.raises(ModelError, match="no server answers"):
                await engine.think(asked(ASKS[0]))
            assert await engine.ready()
            with live(app, port):
                found.append(await engine.think(asked(ASKS[0])))
                assert not await engine.ready()
        finally:
            await engine.close()
        return found

    before, after = asyncio.run(ask())
    assert before == after


def test_an_answer_that_breaks_off_is_an_error(folder: Path, upstream: tuple[MockVllm, str]) -> None:
    mock, url = upstream
    mock.breaks_off = True

    async def ask() -> None:
        engine = GatewayEngine(folder, [url], SETTINGS)
        try:
            async for _ in engine.answer(asked(ASKS[0]), Verdict(decision="comply"), Options(max_tokens=N)):
                pass
        finally:
            await engine.close()

    with pytest.raises(ModelError):
        asyncio.run(ask())


def test_without_an_upstream_nothing_is_answered(folder: Path, upstream: tuple[MockVllm, str]) -> None:
    _, url = upstream

    async def ask(address: str, text: str) -> str:
        engine = GatewayEngine(folder, [address], SETTINGS)
        try:
            cause = await engine.ready()
            await engine.think(asked(text))
        finally:
            await engine.close()
        return cause

    with pytest.raises(ModelError):
        asyncio.run(ask("http://127.0.0.1:9", ASKS[0]))
    with pytest.raises(InputError):
        asyncio.run(ask(url, "word " * 5000))
