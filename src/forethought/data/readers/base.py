"""What all readers share: rows, how a file is opened and decoded, and what becomes of a row that can't be read."""

from __future__ import annotations

import codecs
import io
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
_CHUNK = 1 << 20
_DAMAGED = re.compile(r"[\udc80-\udcff]")
_UNDEFINED_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"


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


def open_text(name: str, opener: Opener) -> io.TextIOWrapper:
    """A file as text, line ends as they are.

    UTF-8, UTF-16 and UTF-32 with or without a byte-order mark, else cp1252, which
    Latin-1 files read as well. A file that is mostly UTF-8 stays UTF-8: its damaged
    bytes come out as surrogates, which `is_damaged` finds. Raises InputError for bytes
    that are none of these.
    """
    return io.TextIOWrapper(opener(), encoding=_encoding(name, opener), errors="surrogateescape", newline="")


def is_damaged(text: str) -> bool:
    """Whether a text holds bytes that its file's encoding does not have."""
    return not text.isascii() and _DAMAGED.search(text) is not None


def _encoding(name: str, opener: Opener) -> str:
    with opener() as file:
        head = file.read(4096)
        if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            return "utf-32"
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what spreadsheets call "Unicode text"
            return "utf-16"
        if b"\0" in head:
            return _without_mark(name, head)
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        sound = damaged = 0
        undefined = False
        chunk = head
        while chunk:
            text = decoder.decode(chunk)
            if not text.isascii():
                broken = len(_DAMAGED.findall(text))
                damaged += broken
                sound += len(text) - len(text.encode("ascii", "ignore")) - broken
                undefined = undefined or any(byte in chunk for byte in _UNDEFINED_IN_CP1252)
            chunk = file.read(_CHUNK)
    damaged += len(decoder.decode(b"", final=True))
    if damaged <= sound:
        return "utf-8-sig"
    if undefined:
        raise InputError(name, "is neither UTF-8, UTF-16 nor Western European text", "Save it as UTF-8")
    return "cp1252"


def _without_mark(name: str, head: bytes) -> str:
    """UTF-16 without its mark: every second byte of Latin text is zero."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > len(head) // 4 and even * 10 < odd:
        return "utf-16-le"
    if even > len(head) // 4 and odd * 10 < even:
        return "utf-16-be"
    raise InputError(name, "is not text, whatever its name says", "Export it as CSV, JSON lines or Parquet")
