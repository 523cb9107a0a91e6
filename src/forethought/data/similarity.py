"""How alike two requests are, by their words: exact set similarity, the same on every machine.

A request becomes the set of its content words, stemmed, and of the pairs that follow
each other once function words are gone. Two requests are compared by the Jaccard
similarity of these sets: `How do I pick a lock?` and `What's the best way to pick
locks?` are the same set; another verb or object is not. A short request inside a long
one (a benchmark's request wrapped in a story) is found by containment of its pairs, as
n-gram decontamination does (`data/neighbours.py`).
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

import snowballstemmer

_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+")
"""A word, or one character of a script that puts no spaces between words."""
# Words that only frame a request. Negations, `without`, `who`, `where`, `when` and `why` change what is asked: kept.
_FRAME_WORDS = """
    a an the this that these those some any of to in on at by for with from into as about and or but so if than then
    i me my mine we us our you your yours he him his she her it its they them their someone somebody somebodys one s d
    ll m re ve is are was were be been being am do does did have has had can could would will shall should may might
    must how what which way ways best good please tell explain show there here also just really very ok okay hey hi
    want need know like get"""
_FRAME = frozenset(_FRAME_WORDS.split())
_stem = lru_cache(maxsize=100_000)(snowballstemmer.stemmer("english").stemWord)


class Pieces(NamedTuple):
    """A request as it is compared."""

    words: frozenset[str]
    """Stems of its content words."""
    pairs: frozenset[str]
    """Content words that follow each other, as `first second`."""

    wording: str
    """All its words as they stand, without case and punctuation."""

    @property
    def all(self) -> frozenset[str]:
        """Words and pairs: the set whose Jaccard similarity counts."""
        return self.words | self.pairs


def pieces(text: str) -> Pieces:
    """The pieces of a text; of all its words where fewer than two bear content, and never none."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    # Zero-width characters and the like would cut words in two.
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    said = _WORD.findall(plain)
    if not said:
        plain = " ".join(plain.split())
        return Pieces(frozenset({plain}), frozenset(), plain)
    content = [word for word in said if word not in _FRAME]
    stems = [_stem(word) for word in (content if len(content) >= 2 else said)]
    return Pieces(frozenset(stems), frozenset(f"{a} {b}" for a, b in itertools.pairwise(stems)), " ".join(said))


def jaccard(one: Pieces, other: Pieces) -> float:
    """Shared pieces over all pieces, 0 to 1."""
    shared = len(one.words & other.words) + len(one.pairs & other.pairs)
    return shared / (len(one.words | other.words) + len(one.pairs | other.pairs))
