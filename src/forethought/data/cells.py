"""What the cells of foreign tables say, in the forms in which sets are published: conversations, labels, categories."""

from __future__ import annotations

import ast
import contextlib
import json
import operator
import re
from collections.abc import Mapping
from typing import Any

from forethought.data.files import WORDS, Row
from forethought.data.json_files import is_turns
from forethought.errors import InputError
from forethought.records import Message

_CELLS = WORDS["cells"]
_HARMFUL_WORDS, _HARMLESS_WORDS = ({*_CELLS[side]} for side in ("harmful_words", "harmless_words"))
_ROLES = {word: role for role in ("user", "assistant", "system") for word in (role, *_CELLS[role])}
_SPEAKER = re.compile(r"(?:\A|\n)\s*(Human|User|Assistant|System):[ \t]*")
_STARTS = re.compile(r"\s*(?:Human|User|System):")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_BOUND = re.compile(rf"(>=|<=|>|<)\s*({_NUMBER})")
_COMPARED = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


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
        named = [(("user", asked), ("assistant", said)) for asked, said in value]
        return [{"role": role, "content": text} for pair in named for role, text in pair]
    return turns_of(value)


def messages_of(turns: list[Any]) -> list[Message]:
    """Turns as messages; those without text are left out. Raises InputError for a role that no chat has."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        if isinstance(turn, str):
            role, text = ("user", "assistant")[number % 2], turn
        else:
            named = next((turn[key] for key in WORDS["turns"]["roles"] if key in turn), "user")
            role = str(named.get("role", "") if isinstance(named, dict) else named).lower()
            text = _content(next((turn[key] for key in WORDS["turns"]["texts"] if key in turn), ""))
        if role not in _ROLES:
            fix = f"Say who that is: --column user={role}, or assistant or system"
            raise InputError(f"role '{role}'", "is not one a chat can have", fix)
        if text.strip():
            messages.append(Message.model_validate({"role": _ROLES[role], "content": sound(text)}))
    return messages


def _content(value: object) -> str:
    """The text of a turn: itself, or its blocks of text without images and tool calls."""
    if isinstance(value, dict):
        value = value.get("parts", value.get("text"))
    if isinstance(value, list):
        texts = [block.get("text") if isinstance(block, dict) else block for block in value]
        return "\n\n".join(text for text in texts if isinstance(text, str) and text.strip())
    return value if isinstance(value, str) else "" if is_blank(value) else str(value)


def is_blank(value: object) -> bool:
    """Whether a cell is empty: None, NaN, spaces, an empty list, or a word that stands for nothing."""
    if value is None or value != value:  # NaN alone differs from itself
        return True
    if isinstance(value, str):
        return value.strip().lower() in _CELLS["empty"]
    return isinstance(value, list | tuple | dict) and not value


def label_of(value: object, inverted: bool = False, said: Mapping[str, str] | None = None) -> bool | None:
    """True for harmful, False for harmless, None where it says neither.

    `inverted` is for a column such as `is_safe`: there a bare `true` or `1` means harmless. `said` tells by side,
    `harmful` and `harmless`, which words (`ja`, `hate,threat`) or numbers (`>=0.5`) are meant; then no others are.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or value != value or isinstance(value, list | tuple | dict):
        return None  # a missing label is not the label "none"
    key = _written(value)
    if said:
        sides = {side == "harmful" for side, words in said.items() if _is_meant(key, words)}
        return sides.pop() if len(sides) == 1 else None
    harmful = key in _CELLS["harmful"]
    if harmful or key in _CELLS["harmless"]:
        return harmful is not (inverted and key in _CELLS["bare"])
    return _label_in_words(key)


def says_label(value: object) -> bool:
    """Whether a cell says harmful or harmless in words that hardly say anything else, under any column's name."""
    return isinstance(value, str) and _label_in_words(_written(value)) is not None


def _label_in_words(key: str) -> bool | None:
    """The label of a short phrase such as `vanilla_harmful` or `not harmful`."""
    words = re.findall(r"[a-z]+", key)
    if len(words) > 4:
        return None
    harmful = not _HARMFUL_WORDS.isdisjoint(words)
    if harmful is not _HARMLESS_WORDS.isdisjoint(words):
        return None  # it names both or neither
    return harmful is not any(word in ("not", "non") for word in words)


def _written(value: object) -> str:
    return str(value).strip().lower().removesuffix(".0")


def _is_meant(key: str, words: str) -> bool:
    """Whether a cell is one of the words, or a number within the bound, that someone named."""
    return any(_is_one(key, word) for word in (words, *words.split(",")))


def _is_one(key: str, word: str) -> bool:
    bound = _BOUND.fullmatch(word.strip())
    if bound is None:
        return key == _written(word)
    return re.fullmatch(_NUMBER, key) is not None and _COMPARED[bound[1]](float(key), float(bound[2]))


def categories_of(value: object) -> tuple[str, ...]:
    """Category names of a cell: a word, a list, a list written as text, or flags by name."""
    if isinstance(value, str) and value.strip()[:1] == "[":
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value.strip())
    if isinstance(value, dict):
        value = [name for name, flag in value.items() if flag is True or flag == 1]
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value if not is_blank(item))
    return () if is_blank(value) else (str(value).strip(),)


def sound(text: str) -> str:
    """The text without halves of surrogate pairs: cut emoji in JSON, which nothing can encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def flat(row: Row) -> Row:
    """The row with the members of nested objects as columns of their own: `label.harmful`."""
    if not any(isinstance(value, dict) for value in row.values()):
        return row
    added: dict[str, Any] = {}
    for column, value in row.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                added[f"{column}.{key}"] = inner
                if isinstance(inner, dict):
                    added |= {f"{column}.{key}.{last}": cell for last, cell in inner.items()}
    return added | row
