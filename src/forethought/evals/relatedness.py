"""How near two texts are by their words, and whether one is nearer than chance: no model, no network.

TF-IDF over whole words, cut to their first letters so that inflected forms meet; words that all
requests share weigh little. Parts of words don't count: a text that only repeats a request in
leetspeak or without its vowels has not understood it. What counts is the rank among other
requests, not the similarity itself: long answers and wordy styles are somewhat similar to all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from forethought.evals.estimate import Array

_WORD = re.compile(r"\b[^\W\d_]{3,}\b")
_STEM_LETTERS = 5


def words_of(text: str) -> list[str]:
    """Words of three letters and more, in lower case, cut to five letters; those with a digit in them are none."""
    return [word[:_STEM_LETTERS] for word in _WORD.findall(text.lower())]


class Background:
    """Requests to compare with: they give the weights of words, and the null against which nearness is judged."""

    def __init__(self, requests: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.requests = tuple(dict.fromkeys(requests))
        self._vectors: Any = TfidfVectorizer(analyzer=words_of, sublinear_tf=True)
        # Without a word in any request there is nothing to compare by.
        worded = any(words_of(request) for request in self.requests)
        self._known: Any = self._vectors.fit_transform(self.requests) if worded else None

    def others_as_near(self, request: str, text: str) -> tuple[int, int] | None:
        """(how many other requests the text is at least as similar to as to this one, how many others there are).

        None where there is no other request, or the text shares no word with any of them.
        """
        if self._known is None:
            return None
        rows: Any = self._vectors.transform([request, text])
        own = float((rows[0] @ rows[1].T).toarray()[0, 0])
        similar: Array = (self._known @ rows[1].T).toarray()[:, 0]
        others = similar[np.array([other != request for other in self.requests])]
        if not len(others) or (own == 0 and not others.any()):
            return None
        return int((others >= own).sum()), len(others)

    def chance(self, request: str, text: str) -> float | None:
        """How often a text about something else would rank this request as high, 0 to 1 (a permutation p-value)."""
        found = self.others_as_near(request, text)
        return None if found is None else (1 + found[0]) / (1 + found[1])

    def ranks_first(self, request: str, text: str) -> bool | None:
        """Whether the text is nearer to this request than to any other; a tie is not."""
        found = self.others_as_near(request, text)
        return None if found is None else found[0] == 0
