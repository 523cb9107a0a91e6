"""`/v1/responses`: the part of it that needs nothing kept between requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from forethought.server import conversation, fields
from forethought.server.asking import Answer, Asking, Question, ResponseFormat, answered, event
from forethought.server.conversation import Turn, turns_of
from forethought.server.errors import ApiError
from forethought.server.records import Call, Verdict
from forethought.server.run import Run
from forethought.server.tools import Choice, Tool, ToolFunction

router = APIRouter()
Item = dict[str, Any]
"""An item of an output."""


class TextConfig(BaseModel):
    """How the answer is written."""

    format: ResponseFormat | None = None


class FlatTool(ToolFunction):
    """A tool, as this endpoint writes it."""

    type: Literal["function"] = "function"


class ResponseRequest(Asking):
    """A response that is asked for."""

    input: str | list[conversation.Item]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: TextConfig | None = None
    tools: list[FlatTool] | None = Field(default=None, max_length=128)
    tool_choice: Choice | None = None
    previous_response_id: str | None = None
    conversation_: Any = Field(default=None, alias="conversation")
    background: bool | None = None

    def turns(self) -> list[Turn]:
        """The conversation. Raises ApiError where it rests on what was kept: nothing is."""
        if self.previous_response_id or self.conversation_ or self.background:
            raise ApiError(400, "Nothing is kept here: send the whole conversation", "unsupported_parameter")
        head = [Turn(role="system", content=self.instructions)] if self.instructions else []
        return head + turns_of(self.input)


@router.post("/v1/responses", response_model=None)
async def responses(body: ResponseRequest, request: Request) -> Response:
    """Thinks, decides, then answers."""
    with Run(request, "resp") as run:
        form = body.text.format if body.text is not None else None
        tools = [Tool(function=one) for one in body.tools or ()]
        question = body.put(
            run, body.turns(), form.grammar if form is not None else None, tools, body.tool_choice or "auto",
            body.max_output_tokens,
        )  # fmt: skip
        return await answered(Said, run, body, question)


class Said(Answer):
    """A response: perhaps a reasoning item, then a message or calls of tools."""

    body: ResponseRequest

    def __init__(self, run: Run, body: Asking, question: Question, verdict: Verdict) -> None:
        super().__init__(run, body, question, verdict)
        self._number = -1
        content = [{"type": "reasoning_text", "text": verdict.thought}]
        reasoning = {"id": f"rs-{run.id}", "type": "reasoning", "summary": [], "content": content}
        self._before = [{**reasoning, "status": "completed"}] if self.shown_thought else []

    async def whole(self) -> dict[str, Any]:
        """All of it."""
        question = self.question
        piece = await self.run.whole(question.asked, self.verdict, question.options, question.tools)
        items = [self._call(*one) for one in enumerate(piece.calls)] or [self._message(piece.text)]
        return self._object(_status(piece.finish), self._before + items, piece.tokens)

    async def events(self) -> AsyncIterator[bytes]:
        """Event by event."""
        question, place = self.question, len(self._before)
        for kind in ("created", "in_progress"):
            yield self._event(kind, response=self._object("in_progress", []))
        for item in self._before:
            for one in [*self._opened(0, item), self._delta(0, item, self.verdict.thought), *self._closed(0, item)]:
                yield one
        text, tokens, finish, calls = "", 0, "stop", list[Item]()
        pieces = self.run.answer(question.asked, self.verdict, question.options, question.tools)
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                tokens, finish = piece.tokens, piece.finish or finish
                calls += [self._call(*one) for one in enumerate(piece.calls)]
                if piece.text:
                    for one in () if text else self._opened(place, self._message("")):
                        yield one
                    text += piece.text
                    yield self._delta(place, self._message(""), piece.text)
        for number, item in enumerate(calls, start=place):
            told = {"item_id": item["id"], "output_index": number}
            yield self._event("output_item.added", output_index=number, item=item | {"arguments": ""})
            yield self._event("function_call_arguments.delta", **told, delta=item["arguments"])
            yield self._event("function_call_arguments.done", **told, arguments=item["arguments"], name=item["name"])
            yield self._event("output_item.done", output_index=number, item=item)
        if not calls:
            message = self._message(text)
            for one in [*([] if text else self._opened(place, message)), *self._closed(place, message)]:
                yield one
            calls = [message]
        yield self._event(_status(finish), response=self._object(_status(finish), self._before + calls, tokens))

    def _opened(self, place: int, item: Item) -> list[bytes]:
        part = item["content"][0]
        empty = {name: "" if name in ("text", "refusal") else value for name, value in part.items()}
        told = {"item_id": item["id"], "output_index": place, "content_index": 0}
        started = item | {"content": [], "status": "in_progress"}
        return [
            self._event("output_item.added", output_index=place, item=started),
            self._event("content_part.added", **told, part=empty),
        ]

    def _delta(self, place: int, item: Item, text: str) -> bytes:
        kind = item["content"][0]["type"]
        told = {"item_id": item["id"], "output_index": place, "content_index": 0}
        return self._event(f"{kind}.delta", **told, delta=text, **({"logprobs": []} if kind == "output_text" else {}))

    def _closed(self, place: int, item: Item) -> list[bytes]:
        part = item["content"][0]
        told = {"item_id": item["id"], "output_index": place, "content_index": 0}
        said = {name: value for name, value in part.items() if name in ("text", "refusal")}
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        return [
            self._event(f"{part['type']}.done", **told, **said, **more),
            self._event("content_part.done", **told, part=part),
            self._event("output_item.done", output_index=place, item=item),
        ]

    def _event(self, kind: str, **data: Any) -> bytes:
        self._number += 1
        return event({"type": f"response.{kind}", "sequence_number": self._number, **data}, f"response.{kind}")

    def _message(self, text: str) -> Item:
        part = {"type": "refusal", "refusal": text} if self.verdict.refused else {
            "type": "output_text", "text": text, "annotations": []
        }  # fmt: skip
        head = {"id": f"msg-{self.run.id}", "type": "message", "role": "assistant", "status": "completed"}
        return {**head, "content": [part]}

    def _call(self, place: int, call: Call) -> Item:
        name = f"{self.run.id}-{place}"
        said = {"type": "function_call", "name": call.name, "arguments": call.arguments, "status": "completed"}
        return {"id": f"fc-{name}", "call_id": f"call-{name}", **said}

    def _object(self, status: str, output: list[Item], tokens: int = 0) -> dict[str, Any]:
        body, verdict, run, options = self.body, self.verdict, self.run, self.question.options
        return {
            "id": run.id, "object": "response", "created_at": run.created, "status": status, "model": body.model,
            "error": None, "instructions": body.instructions, "output": output, "metadata": {}, "store": False,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "temperature": options.temperature, "top_p": options.top_p, "max_output_tokens": options.max_tokens,
            "parallel_tool_calls": True, "tool_choice": body.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in body.tools or ()], "text": {"format": {"type": "text"}},
            "moderation": fields.moderation_of_response(verdict, run.server.engine, run.caller),
            "usage": None if status == "in_progress" else fields.usage(verdict, tokens),
        }  # fmt: skip


def _status(finish: str | None) -> str:
    return "incomplete" if finish == "length" else "completed"
