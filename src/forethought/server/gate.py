"""Around the whole application: no header that a caller could break out of, and a span where traces are configured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from forethought.server.traces import Traces

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CONTROL = bytes([*range(32), 127])
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    b" img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
"""On every response that says nothing else."""


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: App, traces: Traces) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        above = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"}
        with self._traces.span(f"{scope['method']}", above) as span:

            async def clean(event: Event) -> None:
                if event["type"] == "http.response.start":
                    given = [(name.lower(), value.translate(None, _CONTROL)) for name, value in event["headers"]]
                    named = {name for name, _ in given}
                    ours = [(name, value) for name, value in _HEADERS.items() if name not in named]
                    event = {**event, "headers": [*given, *ours]}
                    if span is not None:
                        span.update_name(f"{scope['method']} {getattr(scope.get('route'), 'path', 'other')}")
                        span.set_attribute("http.response.status_code", event["status"])
                await send(event)

            await self._app(scope, receive, clean)
