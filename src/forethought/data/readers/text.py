"""Bytes to text: the encoding is decided on the whole file, so that nothing changes halfway."""

from __future__ import annotations

import codecs
import io
import re

from forethought.data.readers.base import Opener
from forethought.errors import InputError

_CHUNK = 1 << 20
_DAMAGED = re.compile(r"[\udc80-\udcff]")
_UNDEFINED_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"


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
