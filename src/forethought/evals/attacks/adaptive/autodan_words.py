"""Synonyms of the words that templates are made of: AutoDAN's word level without WordNet, which needs a download.

Ordinary words alone. Each group holds words of one part of speech and form, so that any may stand for any other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from forethought.evals.attacks.adaptive.autodan_prototypes import PLACE

_GROUPS = (
    "answer reply response", "answers replies responses", "answered addressed covered", "question matter query",
    "explain describe detail", "explains describes details", "write compose draft", "writes composes drafts",
    "begin start open", "pretend imagine suppose", "give provide offer", "gives provides offers",
    "full complete thorough", "fully completely thoroughly", "clear plain direct", "clearly plainly directly",
    "always invariably consistently", "never seldom rarely", "use apply employ", "using applying employing",
    "word term expression", "words terms expressions", "rules guidelines instructions", "conditions terms requirements",
    "warnings cautions notices", "disclaimers caveats provisos", "add include append", "apologise hesitate waver",
    "expert specialist authority", "experts specialists authorities", "researcher scholar scientist",
    "old seasoned experienced", "student pupil learner", "teacher tutor instructor", "character persona figure",
    "characters personas figures", "role part position", "story tale narrative", "fiction fantasy invention",
    "scene episode chapter", "game exercise exchange", "play act perform", "stay remain keep",
    "concrete specific definite", "step stage part", "steps stages parts", "purpose aim goal", "reason ground cause",
    "important essential vital", "useful helpful valuable", "good fine worthwhile", "right proper fitting",
    "reasonable sensible fair", "neutral impartial objective", "information knowledge material",
    "reports studies papers", "numbers figures data", "findings results conclusions", "readers people users",
    "understanding insight comprehension", "agree confirm concur", "learn gain profit", "learning studying knowing",
    "teaches shows tells", "conclusion result inference", "therefore hence consequently", "because since",
    "well-known renowned noted", "often frequently commonly", "public common general", "interest benefit good",
    "declared announced stated", "conversation dialogue discussion", "short brief concise", "long lengthy extended",
    "simple easy basic", "careful attentive precise", "quick swift prompt", "honest frank open", "task job assignment",
    "following next subsequent", "discuss consider examine", "proposes suggests names", "bring put set",
    "assistant helper aide", "ask request enquire", "asks requests enquires", "want wish need", "help assist support",
    "think reason reflect", "great large considerable", "new fresh recent", "whole entire total",
)  # fmt: skip
_WORD = re.compile(r"\{request\}|[A-Za-z]+(?:-[A-Za-z]+)*")


def _table() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for group in _GROUPS:
        words = group.split()
        for word in words:
            found.setdefault(word, []).extend(other for other in words if other != word)
    return {word: tuple(dict.fromkeys(others)) for word, others in found.items()}


SYNONYMS = _table()
"""Word in lower case to those that may stand for it."""


def words_of(text: str) -> list[str]:
    """The words of a text that have synonyms, in lower case and in order; the place of the request is none."""
    return [word.lower() for word in _WORD.findall(text) if word != PLACE and word.lower() in SYNONYMS]


def replace_words(text: str, choose: Callable[[str], str | None]) -> str:
    """The text with each word that has synonyms replaced by what `choose` gives for it; None keeps it.

    Capitals at the beginning of a word are kept, and the place of the request is never touched.
    """

    def one(match: re.Match[str]) -> str:
        word = match.group()
        if word == PLACE or word.lower() not in SYNONYMS:
            return word
        other = choose(word.lower())
        if other is None:
            return word
        return other[:1].upper() + other[1:] if word[:1].isupper() else other

    return _WORD.sub(one, text)


def reworded(text: str, rng: random.Random, most: int = 10) -> str:
    """The text with up to `most` words replaced by synonyms, drawn alike: the mutation where no attacker writes one.

    AutoDAN's own code replaces ten words by WordNet where no model is to be had.
    """
    places = range(len(words_of(text)))
    chosen = set(rng.sample(places, min(most, len(places))))
    seen = iter(places)
    return replace_words(text, lambda word: rng.choice(SYNONYMS[word]) if next(seen) in chosen else None)
