"""The server's process: uvicorn with a time limit on the head of a request, our log, and a stop that drains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from forethought.server.log import OurHandler

if TYPE_CHECKING:
    from types import FrameType

    from structlog.typing import FilteringBoundLogger

    from forethought.server.config import ServeConfig


def protocol_with(header_s: float) -> type[H11Protocol]:
    """uvicorn's protocol, which hangs up on a connection that is silent, or slow, before a request is there."""

    class Impatient(H11Protocol):
        _hang_up: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._hang_up is not None:
                self._hang_up.cancel()

        def _watch(self) -> None:
            """The clock runs from the first moment without a whole head to the next with one."""
            if self.conn.their_state is not h11.IDLE:
                if self._hang_up is not None:
                    self._hang_up.cancel()
                    self._hang_up = None
            elif self._hang_up is None:
                self._hang_up = self.loop.call_later(header_s, self.transport.close)

    return Impatient


class DrainingServer(uvicorn.Server):
    """A uvicorn server that says when it is told to stop."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)


def make_server(
    app: Any, config: ServeConfig, log: FilteringBoundLogger, on_stop: Callable[[], None]
) -> DrainingServer:
    """The server of an application; `run()` blocks until it has stopped. `on_stop` is called when it is told to."""
    for name in ("uvicorn", "uvicorn.error"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [OurHandler(log)] if name == "uvicorn" else [], name != "uvicorn"
    settings = uvicorn.Config(
        app, host=config.host, port=config.port, http=protocol_with(config.header_s), ws="none", log_config=None,
        log_level="info", access_log=False, h11_max_incomplete_event_size=config.header_bytes, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=round(config.answers.drain_s),
        timeout_keep_alive=round(max(1.0, config.header_s)),
    )  # fmt: skip
    return DrainingServer(settings, on_stop)
