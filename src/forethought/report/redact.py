"""Redaction: the default wherever a person reads a harmful request or an answer to one."""

from __future__ import annotations


def redact(text: str, keep_words: int = 3) -> str:
    """The first words and how many follow: enough to recognise a row, not to use it."""
    words = text.split()
    if len(words) <= keep_words:
        return text
    return f"{' '.join(words[:keep_words])} [{len(words) - keep_words} words redacted]"
