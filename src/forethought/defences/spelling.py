"""Gives words that were disturbed their plain spelling again.

Best-of-N jailbreaking (Hughes et al. 2024, arXiv 2412.03556) shuffles the letters inside words, turns their case at
random and replaces some by their neighbours; leetspeak and Unicode look-alikes put other signs in their places. People
still read such text, and models read enough of it to answer what they would have refused.

A disturbed word is looked up among English ones of its length (symspellpy's list): the letters that it has, where they
stand, and how common the word is. A sign that is no letter stands for any. Ordinary messages are told by their case and
by their known words, and stay as they are to the letter; so do those in other languages.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from symspellpy.editdistance import DistanceAlgorithm, EditDistance

from forethought.language import ENGLISH, UNKNOWN, language_of

_ODD_CASE, _DISTURBED = 0.25, 0.3
"""Shares of a message's words from which it is disturbed: those in a case that nobody writes, or these and words that
are in no dictionary and no names."""
_FEWEST = 2
"""Words that have to be so: a message may hold a brand."""
_EXPLAINED = 0.7
"""Share of the unknown words that have to be near an English one; else they are code, or of another language."""
_MOST = 400
"""Most words of a message that are looked up: each takes some milliseconds."""
_LONGEST, _JOINED = 20, 8
"""Most letters of a word that is looked up, and most words that stand together for a space that was replaced."""
_NOTHING_SAID = "zxx"
"""What `language_of` calls text that is in no language, such as leetspeak."""
_WORD = re.compile(r"\S+")
_INSIDE = re.compile(r"[\w`{@\[]")
"""What a word begins and ends with, and not the signs around it: a letter, a digit, or a letter's neighbour."""
_LATIN = re.compile(r"[a-z]", re.IGNORECASE)
_MIXED = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]")
_HIDDEN = re.compile(r"(?<=[ -~])[\u00ad\u200b-\u200f\u2060\ufeff]+(?=[ -~])")
_ALIKE = str.maketrans(
    "аеорсухіјѕԁһкмтвнαορεικτυχνАВЕКМНОРСТХУІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdhkmtbhaopeiktuxvABEKMHOPCTXYIJSABEZHIKMNOPTYX",
)
"""Letters of other alphabets that look like Latin ones."""
_LETTERS = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\b\d{1,3}\b")
_SIGNS = tuple(str.maketrans("`{@[0123456789$|", f"azazo{one}zeasgtbgs{one}") for one in "il")
"""Neighbours of letters in ASCII, and the digits and signs that look like one: of the stroke, like either of two."""
_SIGN = re.compile(r"[\d@$|]")
_REPLACED, _ANY, _END, _MOVED, _COMMON = 4.5, 0.6, 1.5, 0.08, 0.5
"""Costs in one unit: a letter replaced, a sign that stands for any letter, a wrong first or last letter, a letter that
stands elsewhere; and what ten times as common a word is worth."""
_SHUFFLED, _OTHER_FIRST = 0.5, 1.0
"""Costs of a word that was spelt, in edits: its letters in another order, and another first letter."""
_NEIGHBOUR = 1.5
"""A letter replaced by its neighbour in the alphabet."""
_CLOSE = 5.0
"""Cost, the word's rarity apart, up to which a dictionary explains a word."""
_OTHER = 26
"""The place behind the alphabet's, of all letters that ASCII does not have."""

Ints = np.ndarray[Any, np.dtype[np.int16]]


class _Words(NamedTuple):
    """A dictionary's words of one length, row by row."""

    words: list[str]
    letters: Ints
    """(words, length): each letter's place in the alphabet."""
    counts: Ints
    """(words, 27): how often each letter is in it."""
    common: np.ndarray[Any, np.dtype[np.float64]]
    """log10 of how often it is written."""


@cache
def _known() -> dict[str, float]:
    """English words in lower case, and log10 of how often they stand in books and on the web."""
    file = resources.files("symspellpy").joinpath("frequency_dictionary_en_82_765.txt")
    lines = (line.split() for line in file.read_text(encoding="utf-8-sig").splitlines())
    return {word: math.log10(int(often)) for word, often in lines}


def _is_known(word: str) -> bool:
    """Whether a word in lower case is one, or several that are joined: `it's`, `nine-to-five`."""
    return word in _known() or all(part in _known() for part in _LETTERS.findall(word))


@cache
def _by_length() -> dict[int, _Words]:
    lists: dict[int, list[str]] = defaultdict(list)
    for word in _known():
        if word.isascii() and word.isalpha() and len(word) <= _LONGEST:
            lists[len(word)].append(word)
    found = {}
    for length, words in lists.items():
        letters = np.stack([_places(word) for word in words])
        found[length] = _Words(words, letters, _counts(letters), np.array([_known()[word] for word in words]))
    return found


@lru_cache(maxsize=65536)
def nearest(word: str) -> tuple[str, float]:
    """The likeliest word that a disturbed one in lower case was, and how far it is; itself where none is near."""
    known = _by_length().get(len(word))
    if known is None:
        return word, math.inf
    letters = _places(word)
    signs = int((letters < 0).sum())
    gap = known.counts - _counts(letters[None])
    replaced = np.maximum(-gap, 0).sum(1)
    change = _REPLACED * replaced
    if not signs:  # else it hides which letters are missing
        change = np.minimum(change, _NEIGHBOUR * np.abs(np.cumsum(gap, axis=1)).sum(1))
    wrong = (known.letters != letters) & (letters >= 0)
    far = wrong & (np.abs(known.letters - letters) > 1)
    ends = sum(0.5 * wrong[:, end] + far[:, end] for end in (0, -1))
    cost = change + _ANY * signs + _END * ends + _MOVED * wrong[:, 1:-1].sum(1)
    allowed = 1 if len(word) <= 5 else 2 if len(word) <= 8 else 3
    off = wrong.sum(1) if len(word) <= 3 else replaced  # three letters can't be shuffled
    cost = np.where(off <= allowed, cost, math.inf)
    best = int(np.argmin(cost - _COMMON * known.common))
    return (known.words[best], float(cost[best])) if np.isfinite(cost[best]) else (word, math.inf)


def _places(word: str) -> Ints:
    """(length): each letter's place in the alphabet, behind it for other alphabets' letters; -9 for any other sign."""
    found = [ord(sign) - ord("a") if "a" <= sign <= "z" else _OTHER if sign.isalpha() else -9 for sign in word]
    return np.array(found, dtype=np.int16)


def _counts(letters: Ints) -> Ints:
    """(words, 27) of (words, length)."""
    return np.stack([(letters == place).sum(1) for place in range(_OTHER + 1)], axis=1).astype(np.int16)


def visible(text: str) -> str:
    """What a reader sees, where nothing is guessed: no signs that hide in words, and Latin letters for those that look
    like them in one word with them."""
    if text.isascii():
        return text
    text = _HIDDEN.sub("", text)
    plain = {sign: unicodedata.normalize("NFKC", sign) for sign in {*text} if not sign.isascii()}
    letters = {sign: one for sign, one in plain.items() if len(one) == 1 and one.isascii() and one.isalpha()}
    text = "".join(letters.get(sign, sign) for sign in text)
    latin = {word: word.translate(_ALIKE) for word in _LETTERS.findall(text)}
    if not any(word != one and _LATIN.search(word) and one.isascii() for word, one in latin.items()):
        return text  # no word that mixes alphabets: what is written in another one is meant
    return _LETTERS.sub(lambda match: latin[match[0]] if latin[match[0]].isascii() else match[0], text)


def restored(text: str) -> str:
    """The message in plain spelling; as it is where its words are not disturbed, or it is not in English."""
    text = visible(text)
    words = [core for _, core, _ in map(_parted, _WORD.findall(text)) if _LATIN.search(core)]
    unknown = [word for word in words if not _is_known(word.lower())]
    cased = [word for word in words if _MIXED.search(word)]
    lower = [word for word in unknown if not word[:1].isupper() and not _MIXED.search(word) and _may_be_word(word)]
    odd_case = len(cased) >= max(_FEWEST, _ODD_CASE * len(words))
    if not odd_case and len(cased) + len(lower) < max(_FEWEST, _DISTURBED * len(words)):
        return text
    english = language_of(text) in (ENGLISH, UNKNOWN, _NOTHING_SAID)
    if not odd_case and not english:
        return text
    plain = {word: _plain(word) for word in [*dict.fromkeys(word.lower() for word in unknown)][:_MOST]}
    explained = sum(found is not None for found in plain.values()) >= _EXPLAINED * len(plain)
    if not explained and not (odd_case and english):
        return text
    if sum(_SIGN.search(word) is not None for word in plain) > len(plain) / 2:  # then numbers are words, too
        plain |= {word: looked for word in _NUMBER.findall(text) if (looked := _looked(word)) is not None}
    said = _WORD.sub(lambda match: _said(match[0], plain), text)
    return said[:1].upper() + said[1:]


def in_words(text: str) -> str:
    """A text that a model spelt letter by letter, each word that is none as the known one next to it: letters that it
    left out, said twice or swapped are made good, and what is near no word stays."""
    return _LETTERS.sub(lambda match: _like(_next_to(match[0].lower()), match[0]), text)


def _like(word: str | None, said: str) -> str:
    """A word in the case of the one that was said, or that one."""
    return said if word is None else word.capitalize() if said[0].isupper() else word


@lru_cache(maxsize=65536)
def _next_to(word: str) -> str | None:
    """The known word next to one in lower case; None where it is known itself, no word, or too far from all."""
    if _is_known(word) or not (word.isascii() and word.isalpha()) or not 2 < len(word) <= _LONGEST:
        return None
    most = 1 if len(word) <= 4 else 2 if len(word) <= 8 else 3
    counts, near = _counts(_places(word)[None]), []
    for length in range(len(word) - most, len(word) + most + 1):
        if (known := _by_length().get(length)) is None:
            continue
        apart = np.abs(known.counts - counts).sum(1)
        for place in np.flatnonzero(apart <= 2 * most):  # an edit changes two at most
            one = known.words[place]
            edits = _distance().compare(word, one, most) if apart[place] else _SHUFFLED
            if edits >= 0:
                cost = edits + _OTHER_FIRST * (one[0] != word[0]) - _COMMON * float(known.common[place])
                near.append((cost, one))
    return min(near)[1] if near else None


@cache
def _distance() -> EditDistance:
    return EditDistance(DistanceAlgorithm.DAMERAU_OSA)


def _may_be_word(word: str) -> bool:
    """Whether digits and signs in it stand for letters, and not for themselves, as in `b64`."""
    return not _SIGN.search(word) or _looked(word.lower()) is not None


def _plain(word: str) -> str | None:
    """What a disturbed word in lower case was; None where no word is near. A `!` between letters was a space."""
    parts = word.split("!", _JOINED)
    if 1 < len(parts) <= _JOINED and all(parts):
        found = [part if _is_known(part) else _plain(part) for part in parts]
        if all(found):
            return " ".join(one for one in found if one)
    if (looked := _looked(word)) is not None or len(word) > _LONGEST:
        return looked
    near, cost = min((nearest(word.translate(signs)) for signs in _SIGNS), key=lambda found: found[1])
    return near if cost <= _CLOSE else None


def _looked(word: str) -> str | None:
    """The known word that a word looks like when its signs are taken for letters."""
    found = (word.translate(signs) for signs in _SIGNS)
    return next((one for one in found if one in _known()), None)


def _said(word: str, plain: dict[str, str | None]) -> str:
    """A word of the message as it is to be read, with the signs around it."""
    before, core, after = _parted(word)
    found = plain.get(core.lower()) or core
    return f"{before}{found.lower() if _MIXED.search(found) else found}{after}"


def _parted(word: str) -> tuple[str, str, str]:
    """The signs before a word, the word, and the signs behind it, in time linear in its length."""
    first = _INSIDE.search(word)
    last = _INSIDE.search(word[::-1])
    if first is None or last is None:
        return word, "", ""
    start, stop = first.start(), len(word) - last.start()
    return word[:start], word[start:stop], word[stop:]
