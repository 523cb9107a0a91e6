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
_TOGETHER = 1000
"""Texts compared at once, which bounds the memory that their similarities to all requests take."""


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
        self._places = {request: place for place, request in enumerate(self.requests)}

    def others_as_near(self, request: str, text: str) -> tuple[int, int] | None:
        """(how many other requests the text is at least as similar to as to this one, how many others there are).

        None where there is no other request, or the text shares no word with any of them.
        """
        return self._others_as_near([(request, text)])[0]

    def _others_as_near(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int] | None]:
        if self._known is None or not pairs:
            return [None] * len(pairs)
        texts: Any = self._vectors.transform([text for _, text in pairs])
        similar: Array = (self._known @ texts.T).toarray()  # requests x texts
        found: list[tuple[int, int] | None] = []
        for column, (request, _) in enumerate(pairs):
            to_all = similar[:, column]
            place = self._places.get(request)
            own = to_all[place] if place is not None else self._similarity(request, texts[column])
            others = to_all if place is None else np.delete(to_all, place)
            none = not len(others) or (own == 0 and not others.any())
            found.append(None if none else (int((others >= own).sum()), len(others)))
        return found

    def _similarity(self, request: str, text: Any) -> float:
        return float((self._vectors.transform([request]) @ text.T).toarray()[0, 0])

    def chance(self, request: str, text: str) -> float | None:
        """How often a text about something else would rank this request as high, 0 to 1 (a permutation p-value)."""
        found = self.others_as_near(request, text)
        return None if found is None else (1 + found[0]) / (1 + found[1])

    def rank_first(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Whether each (request, text) has a text that is nearer to its request than to any other; a tie is not."""
        ranked: list[bool | None] = []
        for start in range(0, len(pairs), _TOGETHER):
            found = self._others_as_near(pairs[start : start + _TOGETHER])
            ranked += [None if one is None else one[0] == 0 for one in found]
        return ranked
