"""The application: routes in front of one engine.

How the parts fit together:

- `create_app(engine, settings, hooks)` makes the FastAPI app; nothing is global, `app.state.server` is the `Server`.
- `Door` admits the caller (`hooks.admit`: keys, roles, limits) before the body is read, and limits its size and time.
- A route reads its body into a record, renders the conversation (`conversation.py`, `asking.py`) and holds a `Run`,
  which is the one way to the engine: a place in the bounded queue, a verdict, and only then an answer to stream.
- `hooks.observers` hear an `Event` at each step, in this order: `started`, `decided`, `first_token`, `done`; or
  `failed`, `cancelled`, `turned_away` instead of what did not come. Audit log, metrics and logs are observers.
- `hooks.routers` adds routes (metrics, the page) and `hooks.on_close` what is to be closed.
- Errors are `ApiError`s (`errors.py`), whoever raises them: OpenAI's shape, without a prompt or a key in it.
- `Caller.may` says what a key may see (`reasoning`, `intent`) and do (`prefill`, `tighten`, `base`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from forethought.server import chat, guard, responses
from forethought.server.config import Settings
from forethought.server.door import Door
from forethought.server.engine import Engine
from forethought.server.errors import ApiError, add_handlers
from forethought.server.records import Caller
from forethought.server.run import Hooks, Server, server_of

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The names that requests may ask for."""
    caller: Caller = request.state.caller
    names = server_of(request).models()[: None if caller.allows("base") else 1]
    return {"object": "list", "data": [_model(name) for name in names]}


@router.get("/v1/models/{name:path}", response_model=None)
async def one_model(name: str, request: Request) -> dict[str, Any]:
    """One of them."""
    if name not in server_of(request).models():
        raise ApiError(404, "There is no such model here: see /v1/models", "model_not_found", "model")
    return _model(name)


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=None)
async def readyz(request: Request) -> JSONResponse:
    """Whether requests are taken in."""
    cause = await server_of(request).ready()
    return JSONResponse({"status": cause or "ready"}, 503 if cause else 200)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "forethought"}


def create_app(engine: Engine, settings: Settings | None = None, hooks: Hooks | None = None) -> FastAPI:
    """The app that serves one engine."""
    settings, hooks = settings or Settings(), hooks or Hooks()
    server = Server(engine, settings, hooks)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await server.drain(settings.drain_s)
        await engine.close()
        for close in hooks.on_close:
            close()

    app = FastAPI(title="Forethought", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.server = server
    add_handlers(app)
    app.add_middleware(Door, settings=settings, admit=hooks.admit)
    for one in (router, chat.router, responses.router, guard.router, *hooks.routers):
        app.include_router(one)
    return app
