"""A server as it is operated: the whole application in front of an engine that follows a script."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from forethought.measure.traffic import Traffic
from forethought.model import RuleNamed
from forethought.policy import default_policy
from forethought.server.app import create_app
from forethought.server.config import ServeConfig
from forethought.server.door import Gate
from forethought.server.keys import Key
from forethought.server.listen import DrainingServer, make_server
from forethought.server.log import make_log
from forethought.server.operations import Operations
from forethought.server.records import Asked, Options, Piece, Verdict

THOUGHT = "The user asks about a <b>house</b>."
ANSWER = "Look **under** the mat, then ask a neighbour."


class ScriptedEngine:
    """Refuses what names a lock, fails at what names a fire, and answers word by word."""

    name = "scripted"
    policy = default_policy()
    special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    markers = ("<think>", "</think>")

    def __init__(self, word_s: float = 0.0, thought_s: float = 0.0) -> None:
        self.word_s, self.thought_s = word_s, thought_s
        self.closed = False

    def check(self, options: Options) -> None:
        pass

    async def think(self, asked: Asked) -> Verdict:
        await asyncio.sleep(self.thought_s)
        text, policy = asked.messages[-1].content, f"{self.policy.name} {self.policy.version}"
        if "fire" in text:
            raise ValueError(f"could not read {text}")
        if asked.base:
            return Verdict(decision=None, policy=policy)
        refuses = "lock" in text
        rule = self.policy.rule("R4")
        return Verdict(
            decision="refuse" if refuses else "comply", score=2.0 if refuses else -2.0, limit=0.0,
            probability=0.88 if refuses else 0.12, threshold=0.5, intent="enter a house", thought=THOUGHT,
            rules=(RuleNamed(id=rule.id, title=rule.title),) if refuses else (), policy=policy,
            refusal="I can't help with that." if refuses else "", prompt_tokens=7, thought_tokens=9, refusal_tokens=6,
        )  # fmt: skip

    async def answer(self, asked: Asked, verdict: Verdict, options: Options) -> AsyncIterator[Piece]:
        words = ANSWER.split(" ")
        for place, word in enumerate(words, start=1):
            await asyncio.sleep(self.word_s)
            text = word if place == len(words) else f"{word} "
            yield Piece(text=text, tokens=place, finish="stop" if place == len(words) else None)

    async def rule_shares(self, asked: Asked) -> dict[str, float]:
        return {}

    async def ready(self) -> str:
        return ""

    async def close(self) -> None:
        self.closed = True


@dataclass
class Operated:
    """A server that runs."""

    url: str
    port: int
    operations: Operations
    server: DrainingServer
    stream: io.StringIO

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was logged."""
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@contextlib.contextmanager
def operated(
    keys: tuple[Key, ...] = (), engine: ScriptedEngine | None = None, traffic: Traffic | None = None, **fields: object
) -> Iterator[Operated]:
    """A server on a free port, in a thread of its own."""
    config = ServeConfig.model_validate({"model": "scripted", "keys": "keys.yaml" if keys else None, **fields})
    stream, engine = io.StringIO(), engine or ScriptedEngine()
    operations = Operations(config, keys, engine, make_log(stream), traffic)
    app = create_app(engine, config.answers, operations.hooks)
    server = make_server(Gate(app, operations.traces), config, operations.log, lambda: None)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    port = listening.getsockname()[1]
    try:
        yield Operated(f"http://127.0.0.1:{port}", port, operations, server, stream)
    finally:
        server.should_exit = True
        thread.join(20)
    assert engine.closed
