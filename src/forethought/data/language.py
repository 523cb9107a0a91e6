"""Which language is a request in? For operators that fit some languages alone.

py3langid (139 languages, no network) on the text; what it isn't sure of counts as
English when it is in Latin script, because most sets are and a short English
question often looks like another language.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import py3langid

UNKNOWN = "und"
"""ISO 639 for an undetermined language: text in another script that the detector isn't sure of."""

_SURE, _CERTAIN = 10.0, 25.0
"""By how many nats another language has to beat English: in a text of `_FEW` words or more without English
function words, and in any text."""
_FEW = 3

# Words that other Latin-script languages don't share: `is`, `for`, `do`, `was` and `to` are words of some.
_ENGLISH = frozenset(
    {"the", "how", "what", "why", "and", "or", "you", "your", "of", "with", "that", "this", "are", "where", "when",
     "who", "should", "could", "would"}
)  # fmt: skip
# Nigerian Pidgin takes its words from English: what is said of one holds for the other here.
_AS_ENGLISH = frozenset({"en", "pcm"})


@lru_cache(maxsize=65536)
def language_of(text: str) -> str:
    """ISO 639 code of the language that a text is in, or `und`."""
    scores: dict[str, float] = {code: float(score) for code, score in py3langid.rank(text)}
    best = max((code for code in scores if code not in _AS_ENGLISH), key=lambda code: scores[code])
    lead = scores[best] - scores["en"]
    words = re.findall(r"\w+", text.lower())
    if lead > _CERTAIN or (lead > _SURE and len(words) >= _FEW and not _ENGLISH & set(words)):
        return best
    return "en" if _mostly_latin(text) else UNKNOWN


def _mostly_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin; a text without letters counts as Latin."""
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(character, "").startswith("LATIN") for character in letters)
    return 2 * latin >= len(letters)
