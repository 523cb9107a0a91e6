"""A real socket: connections that send slowly, or what is no HTTP, and a stop that drains."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from forethought.server.config import ServeConfig
from forethought.server.door import Gate
from forethought.server.listen import DrainingServer, make_server
from forethought.server.log import make_log
from forethought.server.traces import Traces

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked, after as many seconds as the path says; headers hold what breaks out of one."""
    if scope["type"] != "http":
        return
    await asyncio.sleep(float(scope["path"].strip("/") or 0))
    headers = [(b"x-rule", b"R4\r\nset-cookie: a=b"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def served(visit: Callable[[DrainingServer, int], Awaitable[None]], **fields: object) -> list[dict[str, Any]]:
    """Serves while `visit(server, port)` runs; what was logged."""
    config = ServeConfig.model_validate({"model": "none", "port": 0, "header_s": 0.4, **fields})
    stream = io.StringIO()
    log = make_log(stream)

    async def run() -> None:
        server = make_server(Gate(_app, Traces()), config, log, lambda: log.info("stopping"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            await visit(server, server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = True
            await serving

    asyncio.run(run())
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def told_to_stop(server: DrainingServer) -> None:
    server.handle_exit(15, None)
    server._captured_signals.clear()  # else uvicorn raises them anew at its end, here in the tests


async def sent(port: int, *parts: bytes, every_s: float = 0.0) -> tuple[bytes, float]:
    """What comes back for parts that are sent one after another, and the seconds until the server hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    try:
        for part in parts:
            writer.write(part)
            await asyncio.wait_for(writer.drain(), 5)
            await asyncio.sleep(every_s)
    except ConnectionError:
        pass
    try:
        answer = await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        answer = b""
    writer.close()
    return answer, time.monotonic() - began


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"GET / HTTP/1.1\r\n",),
        (b"GET / HTTP/1.1\r\n", *[b"x: y\r\n"] * 30),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"GET / HTTP/1.1\r\n", *[b"x: y\r\n"] * 30),
    ],
)
def test_a_head_that_comes_slowly_is_not_waited_for(parts: tuple[bytes, ...]) -> None:
    async def visit(server: DrainingServer, port: int) -> None:
        _, seconds = await sent(port, *parts, every_s=0.06)
        assert seconds < 2.5
        assert not server.server_state.connections

    served(visit)


def test_an_answer_may_take_longer_than_a_head() -> None:
    async def visit(server: DrainingServer, port: int) -> None:
        answer, _ = await sent(port, b"GET /0.8 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert answer.endswith(b"ok")

    served(visit)


def test_no_header_breaks_out_and_those_that_guard_a_browser_are_there() -> None:
    async def visit(server: DrainingServer, port: int) -> None:
        answer, _ = await sent(port, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        head = answer.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
        assert b"x-rule: r4set-cookie: a=b" in head
        assert not any(line.startswith(b"set-cookie") for line in head)
        assert any(line.startswith(b"content-security-policy: default-src 'none'") for line in head)
        assert not any(line.startswith(b"server:") for line in head)

    served(visit)


def test_what_is_no_http_and_heads_that_are_too_large_are_turned_away() -> None:
    async def visit(server: DrainingServer, port: int) -> None:
        for head in (b"\x16\x03\x01\x02\x00", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000):
            answer, seconds = await sent(port, head + b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400") or not answer
            assert seconds < 2.5

    lines = served(visit)
    assert any(line["event"].startswith("Invalid HTTP request") for line in lines)


def test_a_stop_answers_what_was_begun_and_takes_nothing_new() -> None:
    async def visit(server: DrainingServer, port: int) -> None:
        begun = asyncio.create_task(sent(port, b"GET /0.7 HTTP/1.1\r\nhost: a\r\n\r\n"))
        await asyncio.sleep(0.2)
        told_to_stop(server)
        await asyncio.sleep(0.3)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        assert (await begun)[0].endswith(b"ok")

    assert "stopping" in [line["event"] for line in served(visit)]


def test_what_takes_longer_than_a_stop_may_is_cut_off() -> None:
    async def visit(server: DrainingServer, port: int) -> None:
        begun = asyncio.create_task(sent(port, b"GET /20 HTTP/1.1\r\nhost: a\r\n\r\n"))
        await asyncio.sleep(0.2)
        told_to_stop(server)
        answer, seconds = await begun
        assert seconds < 5
        assert not answer.endswith(b"ok")

    served(visit, answers={"drain_s": 1})
