"""Tools: how an answer's prompt offers them, and how calls are read from the answer.

They stand in the prompt of the answer, which is judged as well as the conversation by itself: nothing that an answer is
shown goes unjudged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from forethought.records import Message
from forethought.server.errors import ApiError
from forethought.server.records import Call

OPENS, CLOSES = "<tool_call>", "</tool_call>"


class ToolFunction(BaseModel):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[\w.-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool of a chat request."""

    type: Literal["function"] = "function"
    function: ToolFunction


Choice = Literal["auto", "none", "required"] | dict[str, Any]


def offered(tools: Sequence[Tool], choice: Choice) -> Sequence[Tool]:
    """The tools that this answer may call. Raises ApiError for a choice of one that there is not."""
    if choice == "none":
        return ()
    if isinstance(choice, dict):
        name = choice.get("name") or (choice.get("function") or {}).get("name")
        chosen = [tool for tool in tools if tool.function.name == name]
        if not chosen:
            raise ApiError(400, "`tool_choice` names a tool that is not among the tools", param="tool_choice")
        return chosen
    return tools


def told_of(tools: Sequence[Tool], schema: dict[str, Any] | None) -> str:
    """What an answer's prompt says of tools or, without any, of the form that it has to have; empty for nothing."""
    if not tools:
        said = json.dumps(schema, ensure_ascii=False)
        return f"Answer with one JSON object that follows this schema:\n{said}" if schema else ""
    lines = [json.dumps(tool.function.model_dump(exclude_none=True), ensure_ascii=False) for tool in tools]
    return (
        "You may call these functions. To call one, write nothing but "
        f'{OPENS}{{"name": NAME, "arguments": ARGUMENTS}}{CLOSES}\n' + "\n".join(lines)
    )


def with_told(messages: Sequence[Message], told: str) -> tuple[Message, ...]:
    """The conversation with that in its system prompt; nothing where nothing is told."""
    if not told:
        return ()
    if messages and messages[0].role == "system":
        return (Message(role="system", content=f"{messages[0].content}\n\n{told}"), *messages[1:])
    return (Message(role="system", content=told), *messages)


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """JSON schema of a call of one of the tools, for an answer that has to be one."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": tool.function.parameters or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def calls_in(answer: str, tools: Sequence[Tool]) -> list[Call]:
    """The calls of an answer that is nothing but calls of tools that there are; empty for any other."""
    names = {tool.function.name for tool in tools}
    calls = []
    for piece in answer.replace(OPENS, "\n").replace(CLOSES, "\n").splitlines():
        if not piece.strip():
            continue
        try:
            said = json.loads(piece)
        except (ValueError, RecursionError):
            return []
        if not isinstance(said, dict) or said.get("name") not in names:
            return []
        calls.append(Call(name=said["name"], arguments=json.dumps(said.get("arguments") or {}, ensure_ascii=False)))
    return calls


def may_call(text: str) -> bool:
    """Whether an answer that begins so may turn out to be a call."""
    begun = text.lstrip()
    return begun[:1] in ("", "{") or OPENS.startswith(begun[: len(OPENS)])
