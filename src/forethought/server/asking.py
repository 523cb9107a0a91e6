"""What all requests for an answer have in common, what is put to the engine for them, and how it comes back.

A response that is streamed buffers nothing, and whoever leaves frees the place.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from forethought.server import fields
from forethought.server.conversation import Turn, neutral, rendered
from forethought.server.errors import ApiError, of
from forethought.server.records import Asked, Options, Verdict
from forethought.server.run import Run
from forethought.server.tools import Choice, Tool, call_schema, offered, told_of, with_told

_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
DONE = b"data: [DONE]\n\n"


class StreamOptions(BaseModel):
    """What a stream bears besides."""

    include_usage: bool = False


class Asking(BaseModel):
    """A request for an answer. Unknown fields are read over: none of them changes what the model is given."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=1, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    """None is 0: the likeliest answer."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    logprobs: bool | int | None = None
    include_reasoning: bool = True
    """Whether the thought is to be shown, where the key may see it."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Probability from which to refuse, where that is stricter than the model's own."""
    stream_refusal: bool | None = None
    """Whether a streamed refusal stands in `delta.refusal`; None is the server's setting."""

    def options(self, run: Run, grammar: dict[str, Any] | None, most: int | None) -> Options:
        """How answers are written. Raises ApiError for what is not to be had."""
        settings = run.server.settings
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        biased = self.logit_bias or {}
        for wrong, param, rule in (
            (bool(self.logprobs), "logprobs", "Log-probabilities of answers are not told"),
            ((self.n or 1) > settings.max_n, "n", f"At most {settings.max_n} answers are given to one request"),
            (len(stop) > 16 or not all(0 < len(one) <= 256 for one in stop), "stop",
             "At most 16 stop texts of 1 to 256 characters are taken"),
            (not all(one.isdecimal() and len(one) < 10 for one in biased), "logit_bias", "Its keys are token ids"),
        ):  # fmt: skip
            if wrong:
                raise ApiError(400, rule, "invalid_value", param)
        return Options(
            max_tokens=min(most or self.max_tokens or settings.answer_tokens, settings.max_answer_tokens),
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed if self.seed is not None else secrets.randbits(31),
            stop=tuple(stop),
            logit_bias={int(one): value for one, value in biased.items()},
            grammar=grammar,
        )

    def put(
        self,
        run: Run,
        turns: Sequence[Turn],
        grammar: dict[str, Any] | None = None,
        tools: Sequence[Tool] = (),
        choice: Choice = "auto",
        most: int | None = None,
        continues: bool = False,
    ) -> Question:
        """What the engine is asked. Raises ApiError."""
        server = run.server
        if self.model not in server.models():
            raise ApiError(404, "There is no such model here: see /v1/models", "model_not_found", "model")
        seen = rendered(turns, server.engine, run.caller, server.settings.max_messages, continues)
        tools = offered(tools, choice)
        if tools and (choice == "required" or isinstance(choice, dict)):
            grammar = call_schema(tools)
        asked = Asked(
            messages=seen.messages,
            answered=with_told(seen.messages, neutral(told_of(tools, grammar), server.engine)),
            prefill=seen.prefill,
            threshold=self.threshold,
            base=self.model != server.engine.name,
        )
        options = self.options(run, grammar, most)
        server.engine.check(options)
        return Question(asked=asked, options=options, tools=tuple(tools))


class Question(BaseModel):
    """A request as the engine is asked it."""

    asked: Asked
    options: Options
    tools: tuple[Tool, ...]
    """Those that the answer may call."""


class Answer:
    """The answer to one question, in the shape of an endpoint."""

    def __init__(self, run: Run, body: Asking, question: Question, verdict: Verdict) -> None:
        self.run, self.body, self.question, self.verdict = run, body, question, verdict
        self.n = body.n or 1

    @property
    def shown_thought(self) -> str:
        """The thought, where it was asked for and the key may see it; else empty."""
        return self.verdict.thought if self.body.include_reasoning and self.run.caller.allows("reasoning") else ""

    async def whole(self) -> dict[str, Any]:
        """The body of the response."""
        raise NotImplementedError

    def events(self) -> AsyncIterator[bytes]:
        """The same as a stream."""
        raise NotImplementedError


def event(data: Mapping[str, Any], kind: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


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


async def answered(shape: type[Answer], run: Run, body: Asking, question: Question) -> Response:
    """Decides, and then answers, streamed or not as it is asked for."""
    verdict = await run.decide(question.asked)
    answer, headers = shape(run, body, question, verdict), fields.headers(verdict)
    if body.stream:
        return EventStream(run, answer.events(), headers)
    return JSONResponse(await run.unless_gone(answer.whole()), headers=headers)


class ResponseFormat(BaseModel):
    """Whether an answer is text or JSON; its schema stands one level deeper in chat requests."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")

    @property
    def grammar(self) -> dict[str, Any] | None:
        """The schema; empty for any object, None for text. Raises ApiError for what is none."""
        if self.type == "text":
            return None
        found = (self.json_schema or {}).get("schema", {}) if self.json_schema is not None else self.schema_
        if not isinstance(found, dict):
            raise ApiError(400, "The schema is no JSON object", "invalid_value", "response_format")
        return found if self.type == "json_schema" else {}
