"""A real server on loopback, in a thread, and a scripted engine to put behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from forethought.errors import InputError, ModelError
from forethought.model import RuleNamed
from forethought.policy import default_policy
from forethought.server.records import Asked, Finish, Options, Piece, Verdict

THOUGHT = "Intent: copy a film.\nVerdict: refuse."


class ScriptedEngine:
    """Refuses what speaks of a film; echoes the rest a word a piece, or what `said` holds a character a piece."""

    name: str = "scripted"
    policy = default_policy()
    special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>", "</s>")
    markers: tuple[str, str] = ("<think>", "</think>")

    def __init__(self, said: str = "", wait_s: float = 0.0) -> None:
        self.said, self.wait_s = said, wait_s
        self.asked: list[Asked] = []
        self.options: list[Options] = []
        self.closed = 0
        self.answers_running = 0

    def check(self, options: Options) -> None:
        pass

    async def think(self, asked: Asked) -> Verdict:
        self.asked.append(asked)
        text = asked.messages[-1].content
        if "too long" in text:
            raise InputError("The conversation", "is longer than the model's context", "Shorten it")
        if "broken" in text:
            raise ModelError("scripted", "is broken", "Restart it")
        if "bug" in text:
            raise RuntimeError(f"about {text}")
        await asyncio.sleep(60 if "forever" in text else self.wait_s)
        refuses = "film" in text
        return Verdict(
            decision="refuse" if refuses else "comply", score=2.0 if refuses else -2.0, limit=0.0,
            probability=0.88 if refuses else 0.12, threshold=0.5, intent="copy a film",
            rules=(RuleNamed(id="R4", title="Fraud"),) if refuses else (), thought=THOUGHT,
            refusal="I can't help with that." if refuses else "", policy="default", prompt_tokens=7, thought_tokens=9,
            refusal_tokens=6 if refuses else 0,
        )  # fmt: skip

    async def answer(self, asked: Asked, verdict: Verdict, options: Options) -> AsyncIterator[Piece]:
        self.options.append(options)
        self.answers_running += 1
        try:
            pieces = list(self.said) or f"You said {asked.messages[-1].content}".split(" ")
            texts = pieces if self.said else [pieces[0], *[f" {one}" for one in pieces[1:]]]
            texts = texts[: options.max_tokens]
            for n, text in enumerate(texts, start=1):
                await asyncio.sleep(self.wait_s)
                last = n == len(texts)
                finish: Finish | None = ("length" if last and n == options.max_tokens else "stop") if last else None
                yield Piece(text=text, tokens=n, finish=finish)
                if "breaks off" in asked.messages[-1].content:
                    raise ModelError("scripted", "broke", "Restart it")
        finally:
            self.answers_running -= 1

    async def rule_shares(self, asked: Asked) -> dict[str, float]:
        return {"R4": 0.7, "R1": 0.3}

    async def ready(self) -> str:
        return ""

    async def close(self) -> None:
        self.closed += 1


@contextmanager
def live(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The address of a server that runs the app in a thread; 0 takes a free port."""
    if not port:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
