"""The gateway before a server that speaks vLLM's API: the embedded engine's decisions, through failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forethought.defences.base import logit
from forethought.errors import InputError, ModelError
from forethought.model import load
from forethought.models.settings import read_settings, write_settings
from forethought.records import Message
from forethought.server.embedded import ModelEngine
from forethought.server.gateway import ALONE, GatewayEngine
from forethought.server.records import Asked, Options, Verdict
from forethought.server.settings import Settings
from tests.server.live import live
from tests.server.mock_vllm import MockVllm
from tests.server.test_embedded import ASKS
from tests.tiny import tiny_adapter, tiny_tokenizer

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
    found = []
    for text in ASKS:
        verdict = await engine.think(asked(text))
        pieces = (
            [] if verdict.refused else [one async for one in engine.answer(asked(text), verdict, Options(max_tokens=N))]
        )
        found.append((verdict, "".join(piece.text for piece in pieces)))
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
        assert ALONE in verdict.cause
    assert {verdict.decision for verdict, _ in gateway} == {"refuse", "comply"}


def test_each_model_is_asked_where_it_is_held(folder: Path, upstream: tuple[MockVllm, str]) -> None:
    whole, url = upstream
    alone = MockVllm(whole.model, ["base"]), MockVllm(whole.model, ["scot"])
    with live(alone[0].app) as base, live(alone[1].app) as adapter:
        apart = asyncio.run(all_of(GatewayEngine(folder, [base, adapter], SETTINGS)))
    assert [(verdict.decision, text) for verdict, text in apart] == [
        (verdict.decision, text) for verdict, text in asyncio.run(all_of(GatewayEngine(folder, [url], SETTINGS)))
    ]
    assert all(len(mock.calls) >= len(ASKS) for mock in alone)


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
