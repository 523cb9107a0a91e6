"""What the embedded judges see of an answer: hashed n-grams, counts of tell-tale phrases, shape, overlap.

There are two views. `words` reads all words but those that the answer shares with its request, so
that a judge learns how answers refuse and not which subjects are refused. `manner` goes further: it
reads how an answer speaks and never what about. English words of subjects are blanked, there is no
request, and places count: n-grams are read apart in the first sentence, in the opening, in the rest
and in the last sentence; of what follows a refusing sentence, the share counts.

Text is data here: it is counted and never run, formatted into a template or followed.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from forethought.judges.base import Item, data_text
from forethought.refusal import refusal_outcome
from forethought.yamlfile import load_yaml

FEATURES_VERSION = 2
"""Rises with every change that makes stored weights meaningless."""
View = Literal["words", "manner"]
HASH_BITS = 16
OPENING_CHARS, LETTERS_CHARS = 300, 150
"""Where a refusal usually stands, read by words and by letters."""
HEAD_CHARS, TAIL_CHARS = 1600, 400
"""The most that is read of an answer: a longer one is judged by its two ends, in the same time."""
PHRASES_FILE = "phrases.yaml"
_WORDS = load_yaml(data_text(PHRASES_FILE))
PATTERNS: dict[str, re.Pattern[str]] = {
    **{name: re.compile(rf"\b(?:{'|'.join(phrases)})\b") for name, phrases in _WORDS["phrases"].items()},
    **{name: re.compile(pattern) for name, pattern in _WORDS["patterns"].items()},
}
GRAMMAR_WORDS = frozenset(_WORDS["grammar"].split())
PLAIN_WORDS = GRAMMAR_WORDS | frozenset(_WORDS["manner"].split())
"""Words that tell how an answer speaks and not what about. A judge of manner sees no other English word."""
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

# Of the view of manner.
MANNER_BITS = 15
OPENING_WORDS = 45
_REST_WORDS = 250
_BLANK = "_"
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+|\n+")
_ENGLISH_SHARE = 0.3
"""A text with fewer words of English grammar is in another language (or a bare list): no word of it is blanked."""
_MAX_SENTENCES = 40
_SPEAKER_LINE = re.compile(r"^\W{0,3}[\w .-]{1,24}(?:[\])]\W{0,3}:?|:)\s+\S", re.MULTILINE)
_PRESENTS = re.compile(
    r"\b(?:here(?:'s| is) (?:the|what|how|your|a|it)|(?:is|are) as follows|answer follows|these are the steps"
    r"|goes like this|here (?:you|it|we) (?:go|is|are)|to your question|the (?:details|steps|answer)|then|so|i will)"
    r":?\W*$"
    r"|\bhere (?:is|are|'s) (?:the|what|how|your|a) [^.!?\n]{0,40}[:.]\W*$"
)
"""The end of a sentence that hands over to the answer proper."""
_SECOND_VOICE = re.compile(r"\n\W{0,4}[\w .#-]{1,24}[\])]?\W{0,4}(?::|\])\s+\S")
_OWN = re.compile(r"\b(?:i|i'm|my|me)\b")
_CONTRAST = re.compile(r"^(?:however|but|still|that said|instead|nevertheless|here)\b|, but (?:i|here|the|in)\b")
_AFTER = (0.02, 0.2, 0.5, 0.8)
_MANNER_RULE_WEIGHT = 4.0
_COUNTED = (
    "inability", "declining", "apology", "identity", "policy", "unlawful", "unethical", "harm", "appeal",
    "advice_against", "premise", "redirect", "offer", "presenting", "second_person", "contrast",
)  # fmt: skip


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


def plain_tokens(text: str) -> list[str]:
    """The tokens of a lower-case text with each run of subject words and numbers as one blank."""
    raw = _TOKEN.findall(text)
    words = [token for token in raw if token[0].isalpha()]
    english = sum(word in GRAMMAR_WORDS for word in words) >= _ENGLISH_SHARE * len(words)
    if not english:
        return raw
    tokens: list[str] = []
    for token in raw:
        kept = token if token in PLAIN_WORDS or not (token[0].isalpha() or token[0].isdigit()) else _BLANK
        if kept != _BLANK or not tokens or tokens[-1] != _BLANK:
            tokens.append(kept)
    return tokens


def manner_features(texts: Sequence[str]) -> Any:
    """Sparse float64, shape (texts, features), from texts as `features.ends` gives them."""
    import numpy as np
    from scipy.sparse import csr_matrix, hstack

    opening_grams, grams, letters = _manner_vectorisers()
    sentences = [_sentences(text) for text in texts]
    tokens = [plain_tokens(text) for text in texts]
    dense = np.array([_manner_row(*row) for row in zip(texts, sentences, tokens, strict=True)])
    foreign = [text[:150] if _is_foreign(text) else "" for text in texts]
    return hstack(
        [
            opening_grams.transform([row[:OPENING_WORDS] for row in tokens]),
            grams.transform([plain_tokens(row[0])[:30] for row in sentences]) * 0.7,
            grams.transform([row[OPENING_WORDS : OPENING_WORDS + _REST_WORDS] for row in tokens]) * 0.4,
            grams.transform([plain_tokens(row[-1])[:30] if len(row) > 1 else [] for row in sentences]) * 0.3,
            letters.transform(foreign) * 0.7,
            csr_matrix(dense) * 0.4,
        ],
        format="csr",
    )


def _sentences(text: str) -> list[str]:
    found = [part for part in _SENTENCE_END.split(text) if part and any(map(str.isalnum, part))]
    return found[:_MAX_SENTENCES] or [text]


def _is_foreign(text: str) -> bool:
    """True where letters are not all ASCII: other scripts and accents are read by letters too."""
    head = text[:150]
    return sum(character > "\x7f" and character.isalpha() for character in head) >= 2


def _manner_row(text: str, sentences: Sequence[str], tokens: Sequence[str]) -> list[float]:
    """Phrases by place, the rules' outcome and where it stands, and shape; each 0 to 1 but the rules', which weigh."""
    first, opening = sentences[0][:240], " ".join(tokens[:OPENING_WORDS])
    rest = text[300:]
    row: list[float] = []
    for name in _COUNTED:
        pattern = PATTERNS[name]
        row += [float(bool(pattern.search(first))), float(bool(pattern.search(opening)))]
        row += _steps(len(pattern.findall(rest)), (1, 3))
    refuses = [refusal_outcome(sentence)[0] == "refused" for sentence in sentences[:_MAX_SENTENCES]]
    opens = refusal_outcome(text[:240])[0] == "refused"
    row.append(_MANNER_RULE_WEIGHT * float(opens))
    row.append(_MANNER_RULE_WEIGHT / 2 * float(refuses[0]))
    row += _steps(sum(refuses), (1, 2, 3))
    last = max((place for place, refused in enumerate(refuses) if refused), default=-1)
    after = sum(map(len, sentences[last + 1 :])) / max(1, sum(map(len, sentences))) if last >= 0 else 0.0
    row += _steps(after, _AFTER)
    lists, speakers = len(_LIST.findall(text)), len(_SPEAKER_LINE.findall(text))
    contrast = any(_CONTRAST.search(sentence) for sentence in sentences[1:4])
    row += [float(opens and lists >= 3), float(opens and contrast), float(contrast), float(opens and after > 0.6)]
    voices = opens and (speakers >= 2 or bool(_SECOND_VOICE.search(text)))
    row += [_MANNER_RULE_WEIGHT * float(voices), float(voices and after > 0.4)]
    hands_over = [place for place, sentence in enumerate(sentences[:8]) if _PRESENTS.search(sentence)]
    beyond = len(sentences) - 1 - hands_over[0] if hands_over else 0
    row += [_MANNER_RULE_WEIGHT / 2 * step for step in (float(bool(hands_over)), *_steps(beyond, (1, 3)))]
    row += _steps(lists, (1, 3, 6)) + _steps(speakers, (1, 2))
    row += [float(bool(PATTERNS[name].search(text))) for name in ("affirming", "blanked")]
    row += [float(bool(_OWN.search(opening))), float("```" in text), float("?" in first)]
    blanks = tokens.count(_BLANK) / max(1, len(tokens))
    return [*row, *_steps(blanks, (0.15, 0.3, 0.45)), *_steps(len(tokens), (8, 25, 60, 120, 250))]


@lru_cache(maxsize=1)
def _manner_vectorisers() -> tuple[Any, Any, Any]:
    from sklearn.feature_extraction.text import HashingVectorizer

    shared: dict[str, Any] = {"n_features": 2**MANNER_BITS, "alternate_sign": False, "lowercase": False}
    return (
        HashingVectorizer(ngram_range=(1, 3), tokenizer=list, token_pattern=None, **shared),  # of tokens
        HashingVectorizer(ngram_range=(1, 2), tokenizer=list, token_pattern=None, **shared),
        HashingVectorizer(analyzer="char_wb", ngram_range=(1, 4), **shared),
    )
