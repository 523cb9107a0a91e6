"""Conversations in the forms in which they are published, as messages."""

from __future__ import annotations

import json
import re
from typing import Any

from forethought.data.readers.base import is_turns
from forethought.data.values import is_blank, sound
from forethought.errors import InputError
from forethought.records import Message

_ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant",
    "ai": "assistant", "chatgpt": "assistant", "developer": "system",
}  # fmt: skip
_SPEAKER = re.compile(r"(?:\A|\n)\s*(Human|User|Assistant|System):[ \t]*")
_STARTS = re.compile(r"\s*(?:Human|User|System):")


def turns_of(value: object) -> list[Any] | None:
    """The turns that a cell holds, or None where it holds no conversation.

    Read are lists of turns (role and content, from and value, with content as text or
    as blocks), lists of texts that take turns, either of them as JSON text or under
    `messages`, and transcripts of the form "Human: ... Assistant: ...".
    """
    if isinstance(value, str):
        start = value.lstrip()[:1]
        if start in ("[", "{"):
            try:
                return turns_of(json.loads(value))
            except json.JSONDecodeError:
                return None
        return transcript(value)
    if isinstance(value, dict):
        inner = value.get("messages", value.get("conversations"))
        return inner if is_turns(inner) else None
    if isinstance(value, list) and value and (is_turns(value) or all(isinstance(turn, str) for turn in value)):
        return value
    return None


def transcript(text: str) -> list[dict[str, str]] | None:
    """The turns of a text "Human: ... Assistant: ..."; None where it is none."""
    if not _STARTS.match(text) or "Assistant:" not in text:
        return None
    parts = _SPEAKER.split(text)[1:]
    return [{"role": role, "content": said.strip()} for role, said in zip(parts[::2], parts[1::2], strict=True)]


def pairs_of(value: object) -> list[Any] | None:
    """Earlier turns as a `history` column holds them: turns, or pairs of a prompt and its answer."""
    if isinstance(value, list) and value and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return [
            {"role": role, "content": said}
            for pair in value
            for role, said in zip(("user", "assistant"), pair, strict=True)
        ]
    return turns_of(value)


def messages_of(turns: list[Any]) -> list[Message]:
    """Turns as messages; those without text are left out. Raises InputError for a role that no chat has."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        if isinstance(turn, str):
            role, text = ("user", "assistant")[number % 2], turn
        else:
            named = next((turn[key] for key in ("role", "from", "speaker", "author") if key in turn), "user")
            role = str(named.get("role", "") if isinstance(named, dict) else named).lower()
            text = _content(next((turn[key] for key in ("content", "value", "text", "message") if key in turn), ""))
        role = _ROLES.get(role, role)
        if role not in {"system", "user", "assistant"}:
            raise InputError(f"role '{role}'", "is not one a chat can have", "Rename it to system, user or assistant")
        if text.strip():
            messages.append(Message.model_validate({"role": role, "content": sound(text)}))
    return messages


def _content(value: object) -> str:
    """The text of a turn: itself, or its blocks of text without images and tool calls."""
    if isinstance(value, dict):
        value = value.get("parts", value.get("text"))
    if isinstance(value, list):
        texts = [block.get("text") if isinstance(block, dict) else block for block in value]
        return "\n\n".join(text for text in texts if isinstance(text, str) and text.strip())
    return value if isinstance(value, str) else "" if is_blank(value) else str(value)
