"""Servers of models: which are healthy and hold what is asked for, which one a conversation stays with, and what is
asked again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from forethought.errors import InputError, ModelError

_CHECK_EVERY_S = 2.0
_ATTEMPTS = 3
_WAIT_S = 0.5
"""Before a call is made again, the first time; then twice as long."""
_CONNECT_S = 5.0
_LINE_BYTES = 1 << 20
_FAILURES = (aiohttp.ClientError, TimeoutError, ValueError)
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class Upstreams:
    """Asks the servers. A call that fails before anything came of it is made again, at another one where there is."""

    def __init__(self, urls: Sequence[str], timeout_s: float) -> None:
        self._urls = [url.rstrip("/").removesuffix("/v1") for url in urls]
        self._healthy = set(self._urls)
        self._models: dict[str, frozenset[str]] = {}
        """What a server holds, where it says so."""
        self._looked = asyncio.Event()
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._watch: asyncio.Task[None] | None = None

    async def _for(self, key: str, model: str, tried: Sequence[str]) -> str:
        """The server of a conversation: the first of the healthy ones with that model, in an order of its own."""

        def place(url: str) -> tuple[bool, bool, bool, bytes]:
            lacks = model not in self._models.get(url, (model,))
            order = hashlib.sha256(f"{key}\\0{url}".encode()).digest()
            return lacks, url not in self._healthy, url in tried, order

        if self._watch is None:
            self._watch = asyncio.ensure_future(self._watched())
        await self._looked.wait()
        return min(self._urls, key=place)

    async def ask(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """A completion. Raises ModelError where no server gives one, InputError where it is the request's fault."""
        tried: list[str] = []
        for attempt in range(_ATTEMPTS):
            url = await self._for(key, body["model"], tried)
            try:
                async with self._client.post(f"{url}/v1/completions", json=body) as said:
                    if said.status == 200:
                        found: dict[str, Any] = await said.json()
                        return found
                    _check(said.status, await said.text(errors="replace"), len(tried) + 1 < len(self._urls))
            except _FAILURES:
                self._healthy.discard(url)
            tried.append(url)
            await asyncio.sleep(_WAIT_S * 2**attempt)
        raise ModelError("upstream", "no server answers", "Ask again")

    async def stream(self, key: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """A completion's chunks. Raises ModelError where it breaks off: what was passed on is not said twice."""
        tried: list[str] = []
        for attempt in range(_ATTEMPTS):
            url, begun, ended = await self._for(key, body["model"], tried), False, False
            try:
                async with self._client.post(f"{url}/v1/completions", json=body) as said:
                    if said.status != 200:
                        _check(said.status, await said.text(errors="replace"), len(tried) + 1 < len(self._urls))
                        raise aiohttp.ClientPayloadError("not now")
                    async for line in said.content:
                        if line.startswith(b"data: [DONE]"):
                            ended = True
                        elif line.startswith(b"data: "):
                            chunk = json.loads(line[6:])
                            if "error" in chunk:
                                raise aiohttp.ClientPayloadError("failed")
                            begun = True
                            yield chunk
                if ended:
                    return
                raise aiohttp.ClientPayloadError("cut off")
            except _FAILURES:
                self._healthy.discard(url)
                if begun:
                    raise ModelError("upstream", "the answer broke off", "Ask again") from None
            tried.append(url)
            await asyncio.sleep(_WAIT_S * 2**attempt)
        raise ModelError("upstream", "no server answers", "Ask again")

    async def check(self) -> bool:
        """Whether one of them is healthy, after asking all."""
        await asyncio.gather(*[self._look(url) for url in self._urls])
        return bool(self._healthy)

    async def close(self) -> None:
        """Ends it."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        if self._session is not None:
            await self._session.close()

    @property
    def _client(self) -> aiohttp.ClientSession:
        """Made where it is first used, since it belongs to the loop that runs there."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._timeout_s)
            # Without a limit to the connections; a line may hold many tokens' log-probabilities.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, happy_eyeballs_delay=None)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=_LINE_BYTES)
        return self._session

    async def _watched(self) -> None:
        while True:
            await self.check()
            self._looked.set()
            await asyncio.sleep(_CHECK_EVERY_S)

    async def _look(self, url: str) -> None:
        """Whether a server is healthy, and what it says that it holds; not all say so."""
        timeout = aiohttp.ClientTimeout(_CHECK_EVERY_S)
        try:
            async with self._client.get(f"{url}/health", timeout=timeout) as said:
                healthy = said.status in (200, 404)  # not all have such a path
            if healthy and url not in self._models:
                async with self._client.get(f"{url}/v1/models", timeout=timeout) as said:
                    if said.status == 200:
                        self._models[url] = frozenset(str(one["id"]) for one in (await said.json())["data"])
        except (*_FAILURES, KeyError, TypeError):
            healthy = False
        (self._healthy.add if healthy else self._healthy.discard)(url)
        if not healthy:
            self._models.pop(url, None)


def _check(status: int, text: str, more: bool) -> None:
    """Raises InputError for what asking again doesn't mend. With more servers one of them may hold the model."""
    if status not in _AGAIN and not (status == 404 and more):
        rule = "is longer than the model's context" if "context" in text else f"is not taken by the upstream ({status})"
        raise InputError("The request", rule, "Change it, or check the upstream's model names")
