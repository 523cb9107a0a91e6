"""Redaction: the default wherever a person reads a harmful request or an answer to one."""

from __future__ import annotations


def redact(text: str, keep_words: int = 3) -> str:
    """The first words and how many follow: enough to recognise a row, not to use it."""
    words = text.split()
    if len(words) <= keep_words:
        return text
    return f"{' '.join(words[:keep_words])} [{len(words) - keep_words} words redacted]"


def shown(text: str, harmful: bool | None, show_harmful: bool) -> str:
    """A text of a request with that label as a page has it: redacted unless it is harmless, or all is to be shown.

    Intent, thought and answer go by their request: the first two quote it, and what did not refuse may hold harm.
    """
    return text if show_harmful or harmful is False else redact(text)
