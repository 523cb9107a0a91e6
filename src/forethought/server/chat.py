"""`/v1/chat/completions` and `/v1/completions`: the same answer in two shapes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from forethought.server import fields
from forethought.server.asking import DONE, Answer, Asking, Question, ResponseFormat, answered, event
from forethought.server.conversation import Turn
from forethought.server.errors import ApiError
from forethought.server.records import Call, Options, Piece, Verdict
from forethought.server.run import Run
from forethought.server.tools import Choice, Tool

router = APIRouter()


class ChatRequest(Asking):
    """A chat completion that is asked for."""

    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Choice | None = None
    continue_final_message: bool = False
    """Whether the last turn, an assistant's, is the beginning of the answer."""


class CompletionRequest(Asking):
    """A completion that is asked for: its prompt is one message of the user, rendered and judged like any other."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = False
    suffix: str | None = None

    @property
    def text(self) -> str:
        """The one prompt. Raises ApiError for several, and for token ids: a caller writes no tokens."""
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if len(prompts) != 1 or not isinstance(prompts[0], str) or self.echo or self.suffix:
            raise ApiError(400, "One prompt is taken at a time, as text, without echo or suffix", "invalid_value")
        return prompts[0]


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Thinks, decides, then answers."""
    with Run(request, "chatcmpl") as run:
        grammar = body.response_format.grammar if body.response_format is not None else None
        question = body.put(
            run, body.messages, grammar, body.tools or (), body.tool_choice or "auto", body.max_completion_tokens,
            body.continue_final_message,
        )  # fmt: skip
        return await answered(ChatAnswer, run, body, question)


@router.post("/v1/completions", response_model=None)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Thinks, decides, then answers."""
    with Run(request, "cmpl") as run:
        question = body.put(run, [Turn(role="user", content=body.text)])
        return await answered(TextAnswer, run, body, question)


class Choices(Answer):
    """Answers to one question side by side, each a choice of the response."""

    kind, chunk_kind = "", ""

    def first(self, place: int) -> dict[str, Any]:
        """What a choice's stream begins with; empty for nothing."""
        return {}

    def part(self, piece: Piece) -> dict[str, Any]:
        """A part of a choice, as its stream has it; empty where there is nothing to say."""
        raise NotImplementedError

    def choice(self, piece: Piece) -> dict[str, Any]:
        """A whole choice."""
        raise NotImplementedError

    async def whole(self) -> dict[str, Any]:
        run, question, verdict = self.run, self.question, self.verdict
        each = [run.whole(question.asked, verdict, self._options(place), question.tools) for place in range(self.n)]
        pieces = await asyncio.gather(*each)
        choices = [_choice(place, self.choice(piece), piece.finish) for place, piece in enumerate(pieces)]
        said = {"choices": choices, "usage": self._usage([piece.tokens for piece in pieces])}
        return {**self._head(self.kind), **said, "moderation": self._moderation()}

    async def events(self) -> AsyncIterator[bytes]:
        """Chunk by chunk, each as its token comes; the verdict stands in the first."""
        tokens, head = [0] * self.n, self._head(self.chunk_kind)
        for place in range(self.n):
            more = {} if place else {"moderation": self._moderation()}
            if more or self.first(place):
                yield event({**head, "choices": [_choice(place, self.first(place), None)], **more})
        async with aclosing(self._merged()) as merged:  # type: ignore[type-var]
            async for place, piece in merged:
                tokens[place] = piece.tokens
                if part := self.part(piece):
                    yield event({**head, "choices": [_choice(place, part, None)]})
                if piece.finish:
                    yield event({**head, "choices": [_choice(place, self.part(Piece()), piece.finish)]})
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield event({**head, "choices": [], "usage": self._usage(tokens)})
        yield DONE

    async def _merged(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces of all choices as they come."""
        if self.n == 1:  # the shortest way for each token
            async with aclosing(self._pieces(0)) as pieces:  # type: ignore[type-var]
                async for alone in pieces:
                    yield 0, alone
            return
        made: asyncio.Queue[tuple[int, Piece | None]] = asyncio.Queue()

        async def tell(place: int) -> None:
            try:
                async with aclosing(self._pieces(place)) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        made.put_nowait((place, piece))
            finally:
                made.put_nowait((place, None))

        tasks = [asyncio.ensure_future(tell(place)) for place in range(self.n)]
        try:
            left = self.n
            while left:
                place, piece = await made.get()
                if piece is not None:
                    yield place, piece
                else:
                    left -= 1
                    await tasks[place]  # raises what it ended by
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _pieces(self, place: int) -> AsyncIterator[Piece]:
        question = self.question
        return self.run.answer(question.asked, self.verdict, self._options(place), question.tools)

    def _options(self, place: int) -> Options:
        options = self.question.options
        return options.model_copy(update={"seed": options.seed + place})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.run.id, "object": kind, "created": self.run.created, "model": self.body.model}

    def _moderation(self) -> dict[str, Any]:
        engine = self.run.server.engine
        return fields.moderation(self.verdict, engine.policy, engine.name, self.run.caller)

    def _usage(self, tokens: Sequence[int]) -> dict[str, Any]:
        verdict = self.verdict
        written = verdict.thought_tokens + sum(tokens)
        return {
            "prompt_tokens": verdict.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": verdict.prompt_tokens + written,
            "completion_tokens_details": {"reasoning_tokens": verdict.thought_tokens},
        }


class TextAnswer(Choices):
    """Of plain completions."""

    kind = chunk_kind = "text_completion"

    def first(self, place: int) -> dict[str, Any]:
        return {"text": ""}

    def part(self, piece: Piece) -> dict[str, Any]:
        return {"text": piece.text}

    def choice(self, piece: Piece) -> dict[str, Any]:
        return {"text": piece.text}


class ChatAnswer(Choices):
    """Of chat completions."""

    kind, chunk_kind = "chat.completion", "chat.completion.chunk"

    def __init__(self, run: Run, body: Asking, question: Question, verdict: Verdict) -> None:
        super().__init__(run, body, question, verdict)
        thought = self.shown_thought
        self._thought = {"reasoning": thought, "reasoning_content": thought} if thought else {}
        told = body.stream_refusal
        if told is None:
            told = question.options.grammar is not None or run.server.settings.stream_refusal
        self._as_refusal = verdict.refused and told

    def first(self, place: int) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": None if self._as_refusal else "", **self._thought}}

    def part(self, piece: Piece) -> dict[str, Any]:
        if piece.calls:
            return {"delta": {"tool_calls": [{"index": i, **one} for i, one in enumerate(map(_call, piece.calls))]}}
        if piece.text:
            return {"delta": {"refusal" if self._as_refusal else "content": piece.text}}
        return {} if piece.finish else {"delta": {}}

    def choice(self, piece: Piece) -> dict[str, Any]:
        calls = {"tool_calls": [_call(one) for one in piece.calls]} if piece.calls else {}
        refusal = self.verdict.refusal if self.verdict.refused else None
        content = None if calls else piece.text
        return {"message": {"role": "assistant", "content": content, "refusal": refusal, **self._thought, **calls}}


def _choice(place: int, said: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": place, **said, "finish_reason": finish, "logprobs": None}


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": function}
