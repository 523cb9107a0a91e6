"""The fuzz of `fuzz.py` against a real server with the tiny model, and every split of a stream."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import httpx

from forethought.model import load
from forethought.reasoning import markers
from forethought.server.app import create_app
from forethought.server.config import Settings
from forethought.server.embedded import ModelEngine
from forethought.server.records import Asked, Verdict
from forethought.server.text import WithoutThoughts
from tests.server import fuzz
from tests.server.live import live
from tests.tiny import tiny_adapter

TEXTS = {
    "Hello <think>secret</think>world": "Hello world",
    "</think>Hello": "Hello",
    "a</think>b</think>c": "abc",
    "<think>secret</think><think>secret</think>x": "x",
    "a < b and <b>bold</b> <thin": "a < b and <b>bold</b>",
    "x <think>secret": "x",
    "x </thi": "x",
    "1 <": "1 <",
    "<think><think>secret</think>x": "x",
}
"""Answers with thoughts in them, and what of them may be seen."""


class Watched(ModelEngine):
    """Counts verdicts, and those that no thought stands behind or that control tokens reached."""

    thoughts = 0
    skipped = 0

    async def think(self, asked: Asked) -> Verdict:
        verdict = await super().think(asked)
        self.thoughts += 1
        control = any(token in message.content for token in self.special for message in asked.messages)
        if not verdict.thought_tokens or verdict.score is None or control:
            self.skipped += 1
        return verdict


def run_fuzz(count: int, folder: Path) -> tuple[list[tuple[int, str]], int]:
    """(status and text of each response, how many answers no thought stands before)."""
    tiny_adapter(folder, think_budget=3, threshold=0.5)
    settings = Settings(name="fuzzed", refusal_tokens=3, max_body_bytes=200_000)
    engine = Watched(load(folder, dtype="float32"), settings)

    async def ask_all(url: str) -> list[tuple[int, str]]:
        rng, turns = random.Random(count), asyncio.Semaphore(16)
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:

            async def ask(body: bytes) -> tuple[int, str]:
                async with turns:
                    kind = {"content-type": "application/json"}
                    said = await client.post("/v1/chat/completions", content=body, headers=kind)
                    if said.status_code == 200 and said.headers["x-forethought-verdict"] not in ("refuse", "comply"):
                        engine.skipped += 1
                    return said.status_code, said.text

            return await asyncio.gather(*[ask(fuzz.request(rng)) for _ in range(count)])

    with live(create_app(engine, settings)) as url:
        said = asyncio.run(ask_all(url))
    answered = sum(status == 200 for status, _ in said)
    return said, engine.skipped + max(answered - engine.thoughts, 0)


def leaked_bytes() -> int:
    """Bytes of thoughts and of their tags that come through, over every way to split each text twice."""
    leaked = 0
    for text, seen in TEXTS.items():
        for cuts in itertools.combinations_with_replacement(range(len(text) + 1), 2):
            shown = WithoutThoughts(*markers("think"))
            parts = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
            said = "".join(shown.add(part) for part in parts) + shown.end()
            leaked += len(said.strip().encode()) - len(seen.encode())
    return leaked
