"""What the embedded judges see of an answer: hashed n-grams, counts of tell-tale phrases, shape, overlap.

There are two views. `words` reads all words but those that the answer shares with its request, so
that a judge learns how answers refuse and not which subjects are refused. `manner` (`manner.py`)
goes further: it reads no word of any subject and no request. Text is data here: it is counted
and never run, formatted into a template or followed.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from forethought.evals.judges.base import Item
from forethought.evals.judges.manner import manner_features
from forethought.evals.judges.phrases import PATTERNS
from forethought.refusal import refusal_outcome

FEATURES_VERSION = 2
"""Rises with every change that makes stored weights meaningless."""
View = Literal["words", "manner"]
HASH_BITS = 16
OPENING_CHARS, LETTERS_CHARS = 300, 150
"""Where a refusal usually stands, read by words and by letters."""
HEAD_CHARS, TAIL_CHARS = 1600, 400
"""The most that is read of an answer: a longer one is judged by its two ends, in the same time."""
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " "})
_WORD = re.compile(r"[^\W\d_]{4,}")
_MASK = "xreqx"
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "about after also been before could does doing from give have help into like list make many more "
        "most much need only other over provide please should some tell than that their them then there "
        "these they this those very want were what when where which while will with would write your "
        "explain create describe cannot ",
    )
)
_SPEAKER = re.compile(r"^[^\w\s]{0,3}(?:[\w-]{1,15} ?){1,2}[\])]?:\s+(?=\S)|^[\[(][\w .-]{1,20}[\])]:?\s+")
"""A name before the answer proper, as in `Assistant: ...` or `[Classic] ...`."""
_LIST = re.compile(r"^\s*(?:\d+[.)]|[-*\u2022]|step \d+|#+\s)", re.MULTILINE)
_LENGTHS = (20, 60, 120, 250, 500, 1000, 2000, 4000)
_QUOTED = re.compile(r'"[^"\n]{4,200}"')
_OWN_CHARS = 60
"""A refusal in quotes is somebody else's where at least so much text stands outside it."""
_FIRST = ("inability", "apology", "unlawful", "unethical", "harm")
"""Phrases that are also looked for in the first sentence alone."""
_RULE_WEIGHT = 3.0
_SHARES = (0.05, 0.2, 0.4, 0.6, 0.8)


def ends(answer: str) -> str:
    """What is read of an answer, in lower case with plain quotes: all of it but refusals that it quotes, and the
    middle of a very long one."""
    text = _SPEAKER.sub("", answer.strip())
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = text[:HEAD_CHARS] + "\n" + text[-TAIL_CHARS:]
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair, as broken JSON holds, can't be hashed
    text = text.translate(_QUOTES).replace("**", "").lower()
    own = _QUOTED.sub(_unless_refusal, text)
    return own if len(own) >= _OWN_CHARS else text


def _unless_refusal(quoted: re.Match[str]) -> str:
    return '""' if refusal_outcome(quoted[0].strip('"'))[0] == "refused" else quoted[0]


def stems(text: str) -> frozenset[str]:
    """Content words by their first five letters, so that `picking` meets `pick` halfway: `picki`, `pick`."""
    return frozenset(word[:5] for word in _WORD.findall(text) if word not in _COMMON)


def mask(text: str, shared: frozenset[str]) -> str:
    """The text with each word that its request holds replaced by one token."""
    return _WORD.sub(lambda match: _MASK if match[0][:5] in shared else match[0], text) if shared else text


def _steps(value: float, thresholds: Sequence[float]) -> list[float]:
    """A number as ones up to where it reaches: a linear model can bend at each threshold."""
    return [1.0 if value >= threshold else 0.0 for threshold in thresholds]


def repetition(text: str) -> float:
    """Compressed size over size, 0 to about 1; small for text that repeats itself."""
    raw = text.encode("utf-8", "replace")
    return len(zlib.compress(raw, 1)) / max(1, len(raw))


def dense_features(item: Item, text: str, asked: frozenset[str]) -> list[float]:
    """Counts, shape and overlap, each 0 to 1. `text` is `ends(item.answer)`, `asked` the stems of the request."""
    opening, rest = text[:OPENING_CHARS], text[OPENING_CHARS:]
    row: list[float] = []
    for pattern in PATTERNS.values():
        row += _steps(len(pattern.findall(opening)), (1, 2))
        row += _steps(len(pattern.findall(rest)), (1, 3))
    first = re.split(r"(?<=[.!?\n])\s", text, maxsplit=1)[0][:200]
    row += [float(bool(PATTERNS[name].search(first))) for name in _FIRST]
    row.append(_RULE_WEIGHT * float(refusal_outcome(opening)[0] == "refused"))
    row += _steps(len(item.answer), _LENGTHS)
    row += _steps(len(_LIST.findall(text)), (1, 3, 6))
    row += _steps(text.count("\n\n"), (1, 3, 6))
    row += [float("```" in text), float("?" in opening), float(text.endswith("?")), float(text.startswith(('"', "'")))]
    words = stems(text)
    overlap = len(words & asked) / len(asked) if asked else 0.0
    row += _steps(overlap, _SHARES)
    row += _steps(len(stems(opening) & asked) / len(asked) if asked else 0.0, _SHARES)
    row += [float(not asked)]
    row += _steps(repetition(text), (0.3, 0.45, 0.6))
    letters = sum(map(str.isalpha, text[:OPENING_CHARS])) / max(1, len(text[:OPENING_CHARS]))
    return [*row, *_steps(letters, (0.5, 0.7)), math.log1p(len(item.answer)) / 12]


def featurise(items: Sequence[Item], view: View = "words") -> Any:
    """Items to one sparse matrix of float64, shape (items, features of the view).

    Hashing keeps no vocabulary: nothing of a user's data can be read from a trained judge but weights.
    """
    texts = [ends(item.answer) for item in items]
    return manner_features(texts) if view == "manner" else _word_features(items, texts)


def _word_features(items: Sequence[Item], texts: Sequence[str]) -> Any:
    import numpy as np
    from scipy.sparse import csr_matrix, hstack

    letters, opening, body = _vectorisers()
    asked = [stems(item.request.lower()) for item in items]
    dense = np.array([dense_features(*row) for row in zip(items, texts, asked, strict=True)])
    masked = [mask(text, words) for text, words in zip(texts, asked, strict=True)]
    return hstack(
        [
            letters.transform([text[:LETTERS_CHARS] for text in masked]) * 0.5,
            opening.transform([text[:OPENING_CHARS] for text in masked]),
            body.transform([text[OPENING_CHARS:] for text in masked]) * 0.5,
            csr_matrix(dense) * 0.3,
        ],
        format="csr",
    )


@lru_cache(maxsize=1)
def _vectorisers() -> tuple[Any, Any, Any]:
    from sklearn.feature_extraction.text import HashingVectorizer

    shared: dict[str, Any] = {"n_features": 2**HASH_BITS, "alternate_sign": False, "lowercase": False}
    words = r"(?u)[\w']+|[^\w\s]"
    return (
        HashingVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared),
        HashingVectorizer(ngram_range=(1, 3), token_pattern=words, **shared),
        HashingVectorizer(ngram_range=(1, 2), token_pattern=words, **shared),
    )
