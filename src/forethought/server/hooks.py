"""Where keys, limits, the audit log, metrics and the page are put into the app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter, Request

from forethought.server.records import Caller, Event

Admit = Callable[[Request], Awaitable[Caller]]
"""Who asks, before the body is read. Raises ApiError with 401, 403 or 429 (`retry_after_s`)."""
Observer = Callable[[Event], None]
"""Hears of each request, in the event loop: quick, and never raising. One that raises ends the request with 503."""


async def anyone(request: Request) -> Caller:
    """No keys: whoever reaches the port may ask."""
    return Caller()


@dataclass(frozen=True)
class Hooks:
    """What is put into the app."""

    admit: Admit = anyone
    observers: Sequence[Observer] = ()
    routers: Sequence[APIRouter] = field(default=())
    """More routes: metrics, the page."""
    on_close: Sequence[Callable[[], None]] = ()
    """Called once at the end: logs are closed."""
