"""What all readers share: rows, how a file is opened, and what becomes of a row that can't be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NoReturn

from forethought.errors import InputError

Row = dict[str, Any]
Opener = Callable[[], BinaryIO]
"""Opens a file from its start; called again for a second look at it."""
OnBad = Callable[[InputError], None]
"""What is done about a row that can't be read: it raises, or counts the row and lets the reader go on."""
CONVERSATION_COLUMNS = ("messages", "conversation", "conversations", "dialogue", "turns")

_TURN_ROLES = ("role", "from", "speaker", "author")
_TURN_TEXTS = ("content", "value", "text", "message")
_COLUMN_WORDS = {
    "id", "index", "prompt", "question", "query", "request", "text", "instruction", "input", "goal", "behavior",
    "behaviour", "category", "label", "source", "response", "answer", "output", "target", "type", "messages",
    "conversations", "chosen", "rejected", "system", "language",
}  # fmt: skip


def raise_bad(error: InputError) -> NoReturn:
    """The default: a row that can't be read is an error."""
    raise error


def words_in(text: str) -> int:
    """About how many words a text has; scripts without spaces count two characters a word."""
    return max(len(text.split()), len(re.findall(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]", text)) // 2)


def is_turns(value: object) -> bool:
    """True for the turns of a conversation: objects that each name a role and hold a text."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(turn, dict)
            and any(key in turn for key in _TURN_ROLES)
            and any(key in turn for key in _TURN_TEXTS)
            for turn in value
        )
    )


def is_header(cells: Sequence[object]) -> bool:
    """Whether a first line names columns; where it reads like a request itself, the table has no header."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    if len(texts) < len(cells) or not any(texts):
        return False
    if any(text.lower() in _COLUMN_WORDS for text in texts):
        return True
    return not any(words_in(text) >= 5 or (text.endswith("?") and words_in(text) > 2) for text in texts)


def column_names(count: int) -> list[str]:
    """Names for the columns of a table without a header."""
    return ["text"] if count == 1 else [f"column_{number}" for number in range(1, count + 1)]
