"""Conversations are rendered from their roles here, whatever endpoint they came by; no caller writes a prompt.

Control tokens in what anybody wrote are neutralised: a space parts them, so that they read the same and steer nothing.
Thoughts in earlier turns of the assistant are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from forethought.records import Message
from forethought.server.engine import Engine
from forethought.server.errors import ApiError
from forethought.server.records import Caller
from forethought.server.text import parted, without_thoughts

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of content that are read, and where their text stands."""


class Part(BaseModel):
    """A part of a turn's content."""

    model_config = ConfigDict(extra="allow")

    type: str = "text"

    @property
    def written(self) -> str:
        """Its text. Raises ApiError for a part that is none."""
        extra = self.model_extra or {}
        if self.type == "input_json":
            return json.dumps(extra.get("data"), ensure_ascii=False)
        found = extra.get(_TEXTS.get(self.type, ""))
        if not isinstance(found, str):
            raise ApiError(400, "Content can be text alone", "unsupported_content", "content")
        return found


class Function(BaseModel):
    """A call of a function."""

    name: str = Field(max_length=128)
    arguments: str = ""


class ToolCall(BaseModel):
    """A call that an earlier turn of the assistant made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: Function


class Turn(BaseModel):
    """One turn, as chat requests have it."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    prefix: bool = False
    """Of the last turn, an assistant's: the answer goes on from it."""

    @property
    def text(self) -> str:
        """All that it says."""
        if isinstance(self.content, str):
            return self.content
        parts = [part.written for part in self.content or ()]
        return "\n".join(parts) if parts else self.refusal or ""


class Item(BaseModel):
    """An item of an input, as `/v1/responses` and `/v1/decisions` have it; earlier reasoning is read over."""

    type: str = "message"
    role: Literal["user", "developer", "system", "assistant"] = "user"
    content: str | list[Part] | None = None
    name: str = ""
    arguments: str = ""
    input: str = ""
    call_id: str = ""
    output: str | list[Part] = ""

    def turns(self) -> list[Turn]:
        """As chat requests have it. Raises ApiError for a kind that can't be read."""
        if self.type == "message":
            return [Turn(role=self.role, content=self.content)]
        if self.type in ("function_call", "custom_tool_call"):
            function = Function(name=self.name, arguments=self.arguments or json.dumps(self.input))
            return [Turn(role="assistant", tool_calls=[ToolCall(id=self.call_id, function=function)])]
        if self.type in ("function_call_output", "custom_tool_call_output"):
            return [Turn(role="tool", content=self.output, tool_call_id=self.call_id)]
        if self.type == "reasoning":
            return []
        raise ApiError(400, "An input item is of a kind that can't be read", "invalid_value", "input")


def turns_of(given: str | Sequence[Item]) -> list[Turn]:
    """An input as turns."""
    if isinstance(given, str):
        return [Turn(role="user", content=given)]
    return [turn for item in given for turn in item.turns()]


class Rendered(BaseModel):
    """Turns as they are put to the model."""

    messages: tuple[Message, ...]
    prefill: str = ""


def rendered(turns: Sequence[Turn], engine: Engine, caller: Caller, most: int, continues: bool = False) -> Rendered:
    """The conversation of some turns. `continues`: the last one is the beginning of the answer.

    Raises ApiError for one without a turn of the user, with more than `most` turns, or with a beginning that the
    caller may not give.
    """
    if len(turns) > most:
        raise ApiError(400, f"The conversation has {len(turns)} turns, and at most {most} are taken", param="messages")
    prefill = ""
    if turns and turns[-1].role == "assistant" and (continues or turns[-1].prefix):
        if not caller.allows("prefill"):
            raise ApiError(403, "This key may not begin the assistant's turn", "prefill_not_allowed", "messages")
        prefill = neutral(turns[-1].text, engine)
        turns = turns[:-1]
    messages = _joined([_message(turn, engine) for turn in turns])
    if not any(message.role == "user" for message in messages):
        raise ApiError(400, "The conversation has no turn of the user", "no_user_message", "messages")
    return Rendered(messages=messages, prefill=prefill)


def _message(turn: Turn, engine: Engine) -> Message:
    text = neutral(turn.text, engine)
    if turn.role in ("system", "developer"):
        return Message(role="system", content=text)
    if turn.role in ("tool", "function"):
        name = neutral(turn.name or turn.tool_call_id or "", engine)
        return Message(role="user", content=f"Result of the tool {name}:\n{text}".replace(" :", ":", 1))
    if turn.role == "user":
        return Message(role="user", content=text)
    text = without_thoughts(text, engine.markers)
    calls = [neutral(call_text(call.function.name, call.function.arguments), engine) for call in turn.tool_calls or ()]
    return Message(role="assistant", content="\n".join([text, *calls] if text else calls))


def _joined(messages: Sequence[Message]) -> tuple[Message, ...]:
    """System prompts at the beginning as one: templates know one at most."""
    n = next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))
    if n < 2:
        return tuple(messages)
    head = Message(role="system", content="\n\n".join(message.content for message in messages[:n]))
    return (head, *messages[n:])


def neutral(text: str, engine: Engine) -> str:
    """A text in which no control token of the model stands, and nothing that is no character."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text
    while found := [token for token in engine.special if token in text]:
        for token in found:
            text = text.replace(token, parted(token))
    return text


def call_text(name: str, arguments: str) -> str:
    """A call of a tool as the model writes it."""
    try:
        given: Any = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        given = arguments
    return f"<tool_call>{json.dumps({'name': name, 'arguments': given}, ensure_ascii=False)}</tool_call>"
