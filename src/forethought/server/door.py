"""What stands before every route: who asks, how large a body may be, how long it may take, an id for each request.

Around the whole application stands `Gate`: no header that a caller could break out of, and a span where traces are
configured.
"""

from __future__ import annotations

import asyncio
import secrets
import time

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forethought.server.config import Settings
from forethought.server.errors import ApiError, of
from forethought.server.run import Admit
from forethought.server.traces import Traces

GUARDED = ("/v1/", "/beta/")
"""Beginnings of the paths that a caller has to be admitted to."""
_CONTROL = bytes([*range(32), 127])
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    b" img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
"""On every response that says nothing else."""


class Door:
    """ASGI middleware. An unknown caller is turned away before a byte of the body is read."""

    def __init__(self, app: ASGIApp, settings: Settings, admit: Admit) -> None:
        self._app, self._settings, self._admit = app, settings, admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.id = secrets.token_hex(12)
        begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                given = [(b"x-request-id", request.state.id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message.get("headers", []), *given]}
            await send(message)

        try:
            if scope["path"].startswith(GUARDED):
                request.state.caller = await self._admit(request)
                declared = request.headers.get("content-length", "0")
                if not declared.isdecimal() or int(declared) > self._settings.max_body_bytes:
                    raise self._too_large()
            await self._app(scope, self._limited(receive), send_with_id)
        except Exception as error:  # whatever broke: it is told in the API's own shape, without its text
            if begun:
                raise
            await of(error).response()(scope, receive, send_with_id)

    def _limited(self, receive: Receive) -> Receive:
        """What is received, up to the size and the time that a body may have."""
        settings, end, size, over = self._settings, time.monotonic() + self._settings.body_timeout_s, 0, False

        async def limited() -> Message:
            nonlocal size, over
            if over:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(end - time.monotonic(), 0.001))
            except TimeoutError:
                raise ApiError(408, "The body took too long to arrive", "body_timeout") from None
            size += len(message.get("body", b""))
            over = not message.get("more_body", False)
            if size > settings.max_body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is larger than {self._settings.max_body_bytes} bytes", "body_too_large")


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        above = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"}
        with self._traces.span(f"{scope['method']}", above) as span:

            async def clean(message: Message) -> None:
                if message["type"] == "http.response.start":
                    given = [(name.lower(), value.translate(None, _CONTROL)) for name, value in message["headers"]]
                    named = {name for name, _ in given}
                    ours = [(name, value) for name, value in _HEADERS.items() if name not in named]
                    message = {**message, "headers": [*given, *ours]}
                    if span is not None:
                        span.update_name(f"{scope['method']} {getattr(scope.get('route'), 'path', 'other')}")
                        span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, clean)
