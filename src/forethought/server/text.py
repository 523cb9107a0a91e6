"""Text from tokens as they come: whole characters alone, without thought markers, up to where an answer stops.

What may turn out to be the beginning of something that must not be seen is held back until it is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_CONTROL = re.compile(r"[<\[]\S+[>\]]")
"""What an added token looks like that is not merely a piece of text."""


class Characters:
    """Token ids to text. A character whose bytes are not all there yet is held back, and so is space at both ends."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._done = ""
        """Text of the ids before these."""
        self._space = ""
        self._begun = False

    def add(self, ids: Sequence[int]) -> str:
        """The text that became certain."""
        self._ids += ids
        text = self._decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        new = text[len(self._done) :]
        # Ids up to a space are done with: what follows does not change them, and decoding stays short.
        if len(self._ids) > 32 and new[:1].isspace():
            self._ids, self._done = list(self._ids[-1:]), self._decode(self._ids[-1:])
        else:
            self._done = text
        return self._trimmed(new)

    def end(self) -> str:
        """What was held back and is text after all: a broken character at the very end."""
        return self._trimmed(self._decode(self._ids)[len(self._done) :])

    def _trimmed(self, new: str) -> str:
        new = self._space + new
        if not self._begun:
            new = new.lstrip()
        kept = new.rstrip()
        self._space = new[len(kept) :]
        self._begun = self._begun or bool(kept)
        return kept


def held_back(text: str, marks: Sequence[str]) -> int:
    """How many last characters of a text may be the beginning of a mark."""
    longest = max((len(mark) for mark in marks), default=0)
    for n in range(min(longest - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-n:]) for mark in marks):
            return n
    return 0


class Until:
    """Text up to the first of some marks, which end it."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = [mark for mark in marks if mark]
        self._held = ""
        self.reached = False

    def add(self, text: str) -> str:
        """The part that is certain to stand before any mark."""
        if self.reached:
            return ""
        self._held += text
        found = [place for mark in self._marks if (place := self._held.find(mark)) >= 0]
        if found:
            self.reached = True
            return self._held[: min(found)]
        cut = len(self._held) - held_back(self._held, self._marks)
        said, self._held = self._held[:cut], self._held[cut:]
        return said

    def end(self) -> str:
        """What was held back for nothing."""
        return "" if self.reached else self._held


class WithoutThoughts:
    """An answer without any thought in it: what stands between markers is left out, and so is a marker by itself."""

    def __init__(self, opening: str, closing: str) -> None:
        self._opening, self._closing = opening, closing
        self._held = ""
        self._inside = False

    def add(self, text: str) -> str:
        """The part that is certain to be no thought."""
        self._held += text
        said = ""
        while True:
            marks = (self._closing,) if self._inside else (self._opening, self._closing)
            found = [(place, mark) for mark in marks if (place := self._held.find(mark)) >= 0]
            if not found:
                break
            place, mark = min(found)
            said += "" if self._inside else self._held[:place]
            self._held = self._held[place + len(mark) :]
            self._inside = mark == self._opening
        cut = len(self._held) - held_back(self._held, marks)
        said += "" if self._inside else self._held[:cut]
        self._held = self._held[cut:]
        return said

    def end(self) -> str:
        """What was held back for nothing; nothing of a thought that never closed, nor of a marker that was cut."""
        return "" if self._inside or len(self._held) > 2 else self._held


def without_thoughts(text: str, markers: tuple[str, str]) -> str:
    """A whole text as `WithoutThoughts` lets it through."""
    filtered = WithoutThoughts(*markers)
    return (filtered.add(text) + filtered.end()).strip()


def parted(token: str) -> str:
    """A control token with a space in it: before its last sign, or before the last two of `<|this|>`."""
    at = -2 if token.endswith("|>") else -1
    return f"{token[:at]} {token[at:]}"


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Every text that a tokenizer reads as a control token, longest first."""
    added = {str(token) for token in tokenizer.added_tokens_encoder if _CONTROL.fullmatch(str(token))}
    found = added | {str(token) for token in tokenizer.all_special_tokens}
    return tuple(sorted((one for one in found if one not in parted(one)), key=lambda one: (-len(one), one)))
