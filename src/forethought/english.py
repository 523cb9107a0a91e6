"""Is a text English, so that English phrases can be looked for in it? Quick and without a model."""

from __future__ import annotations

import re

_COMMON_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the a an of to in and is are i you it that this for on with how do can my what me be or not have your as at"
        " by from write make was if we they their about would want need tell give",
    )
)


def looks_english(text: str) -> bool:
    """Whether phrases of English can be looked for in it: Latin letters, and some of the commonest words.

    A text of fewer than four words is taken for English when its letters are ASCII.
    """
    letters = [character for character in text if character.isalpha()]
    if not letters or sum(character.isascii() for character in letters) < 0.9 * len(letters):
        return False
    words = re.findall(r"[a-z']+", text.lower())
    return len(words) < 4 or sum(word in _COMMON_ENGLISH for word in words) >= 0.2 * len(words)
