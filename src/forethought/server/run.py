"""The one way from a request to the engine: a place, a verdict, and only then an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from forethought.errors import ForethoughtError
from forethought.records import Request
from forethought.redaction import redact
from forethought.server.config import Settings
from forethought.server.engine import Engine
from forethought.server.errors import ApiError, of
from forethought.server.records import Asked, Caller, Event, Options, Piece, Verdict
from forethought.server.text import WithoutThoughts
from forethought.server.tools import Tool, calls_in, may_call
from forethought.server.verdicts import never_ended, tightened

T = TypeVar("T")
RETRY_AFTER_S = 2.0
Admit = Callable[[HttpRequest], Awaitable[Caller]]
"""Who asks, before the body is read. Raises ApiError with 401, 403 or 429 (`retry_after_s`)."""
Observer = Callable[[Event], None]
"""Hears of each request, in the event loop: quick, and never raising. One that raises ends the request with 503."""


async def anyone(request: HttpRequest) -> Caller:
    """No keys: whoever reaches the port may ask."""
    return Caller()


@dataclass(frozen=True)
class Hooks:
    """Where keys, limits, the audit log, metrics and the page are put into the app."""

    admit: Admit = anyone
    observers: Sequence[Observer] = ()
    routers: Sequence[APIRouter] = ()
    """More routes: metrics, the page."""
    on_close: Sequence[Callable[[], None]] = ()
    """Called once at the end: logs are closed."""


class Server:
    """An engine with what stands around it."""

    def __init__(self, engine: Engine, settings: Settings, hooks: Hooks) -> None:
        self.engine, self.settings, self.hooks = engine, settings, hooks
        self.running = 0
        """Requests under way."""
        self.draining = False
        """Whether the server is about to end: what runs is answered, and nothing is taken in."""

    def models(self) -> list[str]:
        """Names that requests may ask for."""
        return [self.engine.name, *([f"{self.engine.name}-base"] if self.settings.base_model else [])]

    async def ready(self) -> str:
        """Empty where requests are taken in, else why not."""
        return "the server is about to end" if self.draining else await self.engine.ready()

    async def drain(self, at_most_s: float) -> None:
        """Takes nothing in any more, and waits for what runs."""
        self.draining = True
        end = time.monotonic() + at_most_s
        while self.running and time.monotonic() < end:
            await asyncio.sleep(0.05)


def server_of(request: HttpRequest) -> Server:
    """The server that a request came to."""
    found: Server = request.app.state.server
    return found


class Run:
    """One request. It holds a place from its beginning to `end`, which every path has to reach."""

    def __init__(self, request: HttpRequest, prefix: str = "req") -> None:
        """Raises ApiError where there is no place."""
        self.server = server_of(request)
        self.caller: Caller = request.state.caller
        self.id = f"{prefix}-{request.state.id}"
        self.path, self._request = request.url.path, request
        self._began, self._ended = time.monotonic(), False
        self._verdict: Verdict | None = None
        self._asked: Asked | None = None
        self._answer_tokens = 0
        self.streamed = False
        """Whether a stream has taken it over, which ends it."""
        self.created = int(time.time())
        server = self.server
        if server.draining or server.running >= server.settings.max_waiting:
            cause = "The server is about to end" if server.draining else "The server has all it can do"
            self._tell("turned_away", 503, cause)
            raise ApiError(503, cause, "overloaded", retry_after_s=RETRY_AFTER_S)
        server.running += 1
        try:
            self._tell("started")
        except BaseException:
            self._leave()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """The end, but where an answer is streamed yet."""
        if error is not None or not self.streamed:
            self.end(error)

    async def decide(self, asked: Asked) -> Verdict:
        """The verdict. A caller who leaves meanwhile frees the place. Raises ApiError."""
        if asked.base and not self.caller.allows("base"):
            raise ApiError(403, "This key may not ask the model without its defence", "base_not_allowed", "model")
        if asked.threshold is not None and not self.caller.allows("tighten"):
            raise ApiError(403, "This key may not set a threshold", "tighten_not_allowed", "threshold")
        self._asked, settings = asked, self.server.settings
        try:
            thinking = asyncio.wait_for(self.server.engine.think(asked), settings.think_timeout_s)
            verdict = await self.unless_gone(thinking)
        except TimeoutError:
            if not settings.fail_closed:
                raise ApiError(504, "The thought did not end in time", "think_timeout") from None
            verdict = never_ended(self.server.engine.policy)
        self._verdict = verdict = tightened(verdict, asked)
        self._tell("decided")
        return verdict

    async def answer(
        self, asked: Asked, verdict: Verdict, options: Options, tools: Sequence[Tool] = ()
    ) -> AsyncIterator[Piece]:
        """The answer without any thought in it; of a refusal, its text. Cut where the request takes too long.

        What may turn out to be a call of a tool is kept together.
        """
        if verdict.refused:
            self._note(verdict.refusal_tokens)
            yield Piece(text=verdict.refusal, tokens=verdict.refusal_tokens, finish="stop")
            return
        shown, before, held = WithoutThoughts(*self.server.engine.markers), 0, ""
        end = self._began + self.server.settings.request_timeout_s
        async with aclosing(self.server.engine.answer(asked, verdict, options)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                self._note(piece.tokens - before)
                before = piece.tokens
                finish = piece.finish or ("length" if time.monotonic() > end else None)
                held += shown.add(piece.text) + (shown.end() if finish else "")
                if finish:
                    calls = tuple(calls_in(held, tools)) if tools else ()
                    text, finish = ("", "tool_calls") if calls else (held, finish)
                    yield Piece(text=text, tokens=piece.tokens, calls=calls, finish=finish)
                    return
                if held and not (tools and may_call(held)):
                    yield Piece(text=held, tokens=piece.tokens)
                    held, tools = "", ()  # an answer that begins as text is no call

    async def whole(self, asked: Asked, verdict: Verdict, options: Options, tools: Sequence[Tool] = ()) -> Piece:
        """An answer as one piece."""
        texts, last = [], Piece(finish="stop")
        async with aclosing(self.answer(asked, verdict, options, tools)) as pieces:  # type: ignore[type-var]
            async for last in pieces:
                texts.append(last.text)
        return last.model_copy(update={"text": "".join(texts).rstrip()})

    async def unless_gone(self, work: Awaitable[T]) -> T:
        """What comes of some work, which is given up when the caller leaves."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(self._request))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ApiError(499, "The caller has left", "cancelled")
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    def end(self, error: BaseException | None = None) -> None:
        """Frees the place, and tells how it went. What comes later changes nothing."""
        if self._ended:
            return
        self._leave()
        if error is None:
            self._tell("done")
        elif isinstance(error, asyncio.CancelledError | GeneratorExit) or getattr(error, "status", 0) == 499:
            self._tell("cancelled", 499, "the caller has left")
        else:
            known = of(error) if isinstance(error, Exception) else ApiError(500, "ended")
            self._tell("failed", known.status, known.message if isinstance(error, ForethoughtError | ApiError) else "")

    def _note(self, tokens: int) -> None:
        if tokens and not self._answer_tokens:
            self._tell("first_token")
        self._answer_tokens += tokens

    def _leave(self) -> None:
        self._ended = True
        self.server.running -= 1

    def _tell(self, kind: Any, status: int = 200, cause: str = "") -> None:
        verdict, asked = self._verdict, self._asked
        event = Event(
            kind, self.id, self.caller.id, self.path, time.monotonic() - self._began, status, verdict,
            prompt_tokens=verdict.prompt_tokens if verdict is not None else 0,
            thought_tokens=verdict.thought_tokens if verdict is not None else 0,
            answer_tokens=self._answer_tokens, cause=cause or (verdict.cause if verdict is not None else ""),
            asked=Request(messages=asked.messages).id if asked is not None and kind == "decided" else "",
            opening=redact(asked.messages[-1].content)[:200] if asked is not None and kind == "decided" else "",
            base=asked.base if asked is not None else False,
        )  # fmt: skip
        for observer in self.server.hooks.observers:
            try:
                observer(event)
            except Exception:  # an observer may break by anything, and nothing goes on unrecorded
                if kind in ("done", "failed", "cancelled", "turned_away"):
                    continue  # it is too late to say so
                raise ApiError(503, "The request can't be recorded", "not_recorded", retry_after_s=5) from None


async def _gone(request: HttpRequest) -> None:
    """Returns when the caller has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
