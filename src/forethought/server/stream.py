"""A response that is streamed: nothing is buffered, and whoever leaves frees the place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from forethought.server.errors import ApiError, of
from forethought.server.run import Run

_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}


def event(data: Mapping[str, Any], kind: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """Events as they come. It ends its run, however it ends."""

    def __init__(self, run: Run, events: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        self._run, self._events = run, events
        run.streamed = True
        self.status_code, self.background = 200, None
        self.raw_headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in {**_HEADERS, **headers}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error: BaseException | None = None
        try:
            await self._run.unless_gone(self._send(send))
        except BaseException as raised:  # the run ends by it, an interrupt as well
            error = raised
            if not isinstance(raised, ApiError):
                raise
        finally:
            self._run.end(error)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        failure: Exception | None = None
        try:
            async with aclosing(self._events) as events:  # type: ignore[type-var]
                async for one in events:
                    await send({"type": "http.response.body", "body": one, "more_body": True})
        except Exception as error:  # the head is sent: whatever broke is told within the stream
            failure = error
            await send({"type": "http.response.body", "body": event({"error": of(error).body()}), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        if failure is not None:
            raise of(failure) from failure
