"""Word rules of linguistic operators: slang, dialect and the like, without an LLM. English only."""

from __future__ import annotations

import random
import re
from collections.abc import Callable


def sentence(text: str) -> str:
    """The text with an end mark."""
    text = text.strip()
    return text if text[-1:] in ".?!:\"'" else text + "."


def phrase(text: str, keep_case: bool = False) -> str:
    """The text without its end mark, its first letter in lower case unless it is part of a name or `I`."""
    text = text.strip().rstrip(".?!")
    first = text.split(" ", 1)[0]
    if keep_case or first in {"I", "I'm", "I've", "I'd", "I'll"} or (len(first) > 1 and first[1:2].isupper()):
        return text
    return text[:1].lower() + text[1:]


_SLANG = {
    "you": "ya", "your": "ur", "going to": "gonna", "want to": "wanna", "have to": "gotta", "money": "cash",
    "friend": "homie", "people": "folks", "someone": "some dude", "give me": "gimme", "let me": "lemme",
    "because": "cuz", "really": "mad", "good": "dope", "house": "crib", "police": "cops", "children": "kids",
    "isn't": "ain't", "don't know": "dunno", "explain": "break down", "write": "whip up", "create": "cook up",
    "and": "n", "them": "em", "about": "bout", "help me": "hook me up n help me",
}  # fmt: skip
_DIALECT = {
    "you": "ye", "your": "yer", "do": "dae", "how": "hou", "what": "whit", "where": "whaur", "who": "wha",
    "from": "frae", "with": "wi", "know": "ken", "small": "wee", "not": "nae", "can't": "cannae", "don't": "dinnae",
    "make": "mak", "take": "tak", "give": "gie", "my": "ma", "to": "tae", "of": "o'", "and": "an'", "old": "auld",
    "home": "hame", "people": "fowk", "children": "bairns", "house": "hoose", "write": "scrieve",
}  # fmt: skip
_TEXTING = {
    "you": "u", "your": "ur", "are": "r", "please": "pls", "for": "4", "to": "2", "be": "b", "see": "c", "why": "y",
    "because": "bc", "people": "ppl", "with": "w", "about": "abt", "thanks": "thx", "before": "b4", "someone": "some1",
    "without": "w/o", "something": "smth", "tonight": "2nite", "great": "gr8", "really": "rly", "message": "msg",
}  # fmt: skip


def _swap(table: dict[str, str], text: str, rng: random.Random, share: float) -> str:
    """Words of the table replaced, each with the given probability."""
    pattern = re.compile(
        r"\b(" + "|".join(re.escape(word) for word in sorted(table, key=len, reverse=True)) + r")\b", re.I
    )
    return pattern.sub(lambda match: table[match.group().lower()] if rng.random() < share else match.group(), text)


RULES: dict[str, Callable[[str, random.Random], str]] = {
    "slang": lambda text, rng: re.sub(r"(\w{3,})ing\b", r"\1in", _swap(_SLANG, text, rng, 0.9)),
    "dialect": lambda text, rng: _swap(_DIALECT, text, rng, 0.8),
    "texting": lambda text, rng: _swap(_TEXTING, text.lower(), rng, 0.8),
    "lowercase": lambda text, rng: re.sub(r"[.,!?;:\"']", "", text.lower()),
    "capitals": lambda text, rng: text.upper(),
}

ENGLISH_RULES = frozenset({"slang", "dialect", "texting"})
"""Rules that replace English words; the others change letters and punctuation of any language."""


def _equivalents() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for table in (_SLANG, _DIALECT, _TEXTING):
        for plain, styled in table.items():
            if " " not in plain:
                found.setdefault(plain, set()).update(styled.split())
    return {plain: frozenset(words) for plain, words in found.items()}


EQUIVALENTS = _equivalents()
"""Words that the rules put for a word: what a check of meaning has to count as the same."""
