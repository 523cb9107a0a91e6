"""What a person sees of a text that may do harm, and what a terminal gets of a text that somebody else wrote.

Both count characters as a reader sees them, in any script: words between spaces are none in Chinese, and a request
without its vowels or its spaces is still a request.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_COLUMNS, _WIDE = 16, 4
"""What is shown at most, and what a character counts that stands for a word or a syllable: Han, kana, Hangul."""
_SHARE = 3
"""Of a shorter text one part in so many is shown."""
_JOINER = "\u200d"
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?|\x9b[0-?]*[ -/]*[@-~]?"  # colours, cursor, erasing
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"  # titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
"""All but tab and line feed; marks that turn the direction of text; characters that nobody sees. Joiners stay: Persian,
Hindi and emoji are written with them."""


def printable(text: str) -> str:
    """The text without what would steer a terminal or make it read otherwise than it stands there."""
    lines = text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", lines))


def redact(text: str) -> str:
    """The first characters and how many follow: enough to recognise a row, not to use it."""
    plain = " ".join(printable(text).split())
    seen = list(plain) if plain.isascii() else list(characters(plain))
    most = min(_COLUMNS, (len(plain) if plain.isascii() else sum(map(_columns, seen))) // _SHARE)
    shown = 0
    while shown < len(seen) and (most := most - _columns(seen[shown])) >= 0:
        shown += 1
    if not seen:
        return ""
    start = "".join(seen[:shown]).rstrip()
    return f"{start}{' ' if start else ''}[{len(seen) - shown} characters redacted]"


def shown(text: str, harmful: bool | None, show_harmful: bool) -> str:
    """A text of a request with that label as a person gets it: redacted unless harmless, or all is to be shown.

    Intent, thought and answer go by their request: the first two quote it, and what did not refuse may hold harm.
    """
    return printable(text) if show_harmful or harmful is False else redact(text)


def characters(text: str) -> Iterator[str]:
    """The characters that a reader sees: a letter with its accents and signs, an emoji with its parts, a flag."""
    held = ""
    for character in text:
        flag = _is_flag(character) and _is_flag(held)
        joined = unicodedata.category(character) in {"Mn", "Mc", "Me"} or "\U0001f3fb" <= character <= "\U0001f3ff"
        if held and (joined or flag or character == _JOINER or held.endswith(_JOINER)):
            held += character
        else:
            if held:
                yield held
            held = character
    if held:
        yield held


def _is_flag(text: str) -> bool:
    """One letter of the two that make a flag."""
    return len(text) == 1 and "\U0001f1e6" <= text <= "\U0001f1ff"


def _columns(character: str) -> int:
    return _WIDE if unicodedata.east_asian_width(character[0]) in "WF" else 1
