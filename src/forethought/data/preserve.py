"""Does a restyled request still ask what its seed asks?

A variant that asks for something else, answers instead of asking, or refuses to be
written would be taught with the reasoning of its seed. Four checks, by rule: it holds
the seed's content words (inflected, misspelt or in the slang of the word rules), and
its harmless or harmful twin's no better; a rule classifier gives it the seed's rule;
it doesn't answer; it doesn't refuse.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from forethought.data.evolve import EQUIVALENTS, Operator
from forethought.data.shipped import shipped_requests
from forethought.records import Request
from forethought.refusal import refusal_outcome

RuleProbabilities = Callable[[Sequence[str]], list[dict[str, float]]]
"""Texts to the probability of each rule id: the classifier's, or a model's."""

SIMILAR: dict[str, float] = {"linguistic": 0.4, "contextual": 0.7}
"""Least share of a seed's content, weighted by rarity, that a variant must hold, by the kind of its operator:
what stands around a request leaves its words, slang and dialect don't."""
_HOLDS = 0.5
"""Share of a seed's content from which an item of a list is the request itself."""
_ALIKE = 0.5
"""Least overlap (Dice) of two words' letter triples from which one counts as a form of the other."""
_LESS_LIKELY = 0.1
"""A variant's probability of the seed's rule over the seed's own, below which the rule is lost."""
_LIKELIEST = 3
"""Unless the seed's rule is among so many likeliest ones: a style moves a weak classifier, yet seldom that far."""

OTHER_CONTENT = "asks for something else"
OTHER_RULE = "breaks another rule"
ANSWERED = "answers instead of asking"
REFUSED = "refuses instead of rewriting"
EMPTY = "says nothing"


def preservation(
    pairs: Sequence[tuple[Request, Request]],
    operators: dict[str, Operator],
    rules: RuleProbabilities | None = None,
    beside: Iterable[Request] = (),
) -> list[str | None]:
    """Why each variant must not be used, None where it may, for pairs of (seed, variant).

    A variant whose operator is not among `operators` counts as linguistic, the milder bound.
    `rules` compares the rules of harmful seeds. `beside` holds further requests among which
    a seed's twin is looked for; those of the pairs are searched anyhow.
    """
    twins: dict[str, set[str]] = {}
    for request in (*(seed for seed, _ in pairs), *beside):
        if request.twin:
            twins.setdefault(request.twin, set()).add(request.plain)
    causes: list[str | None] = []
    for (seed, variant), same_rule in zip(pairs, same_rules(pairs, rules), strict=True):
        operator = operators.get(variant.operator or "")
        least = SIMILAR[operator.kind if operator is not None else "linguistic"]
        cause = _fault(seed.plain, variant.text, twins.get(seed.twin, set()) - {seed.plain}, least)
        causes.append(OTHER_RULE if cause is None and same_rule is False else cause)
    return causes


def _fault(seed: str, variant: str, twins: set[str], least: float) -> str | None:
    if refusal_outcome(variant)[0] is None:
        return EMPTY
    # A refusal to rewrite; a user's own `I can't`, which the seed has too, is none.
    own = _NEGATED.search(seed.replace("\u2019", "'")) or refusal_outcome(seed)[0] == "refused"
    said = refusal_outcome(variant)[0] == "refused" and not own
    if said or (_NOT_REWRITTEN.search(variant) and not _NOT_REWRITTEN.search(seed)):
        return REFUSED
    held = content_held(seed, variant)
    if held < least or any(content_held(twin, variant) > held for twin in twins):
        return OTHER_CONTENT
    return ANSWERED if _answers(seed, variant) else None


def same_rules(pairs: Sequence[tuple[Request, Request]], rules: RuleProbabilities | None) -> list[bool | None]:
    """Whether each variant breaks its seed's first rule, by a classifier that may be weak; None where it can't tell."""
    same: list[bool | None] = [None] * len(pairs)
    places = [place for place, (seed, _) in enumerate(pairs) if rules is not None and seed.harmful and seed.rules]
    if rules is None or not places:
        return same
    texts = [pairs[place][0].plain for place in places] + [pairs[place][1].text for place in places]
    found = rules(texts)
    for place, of_seed, of_variant in zip(places, found[: len(places)], found[len(places) :], strict=True):
        rule = pairs[place][0].rules[0]
        if rule in of_seed and rule in of_variant:
            rank = sum(other > of_variant[rule] for other in of_variant.values())
            same[place] = rank < _LIKELIEST or of_variant[rule] >= _LESS_LIKELY * of_seed[rule]
    return same


# Similarity

_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+(?:'[^\W_]+)?")
"""A word, or one character of a script that puts no spaces between words."""
_COMMON = 0.05
"""Share of requests from which a word bears no content (`how`, `the`, `write`)."""


def content_held(seed: str, variant: str) -> float:
    """Share of the seed's content words, weighted by rarity, that stand in the variant, 0 to 1.

    A word counts in full when it stands there or a word rule's equivalent does, and in part
    when a word with most of its letter triples does. All words count alike in a seed that
    has common words alone.
    """
    wanted = list(dict.fromkeys(_words(seed)))
    counts, documents = _document_counts()
    weights = [max(0.0, math.log(_COMMON * documents / (counts[word] + 1))) for word in wanted]
    if not any(weights):
        weights = [1.0] * len(wanted)
    there = frozenset(_words(variant))
    total = sum(weights)
    return sum(w * _found(word, there) for word, w in zip(wanted, weights, strict=True) if w) / total if total else 1.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("\u2019", "'"))


@lru_cache(maxsize=1)
def _document_counts() -> tuple[Counter[str], int]:
    requests = [*shipped_requests("contrast"), *shipped_requests("ordinary")]
    return Counter(word for request in requests for word in set(_words(request.text))), len(requests)


def _found(word: str, there: frozenset[str]) -> float:
    if word in there or EQUIVALENTS.get(word, frozenset()) & there:
        return 1.0
    if word.isdigit():  # a number with most of another's digits is another number
        return 0.0
    own = _triples(word)
    best = max((2 * len(own & (other := _triples(w))) / (len(own) + len(other)) for w in there), default=0.0)
    return best if best >= _ALIKE else 0.0


@lru_cache(maxsize=100_000)
def _triples(word: str) -> frozenset[str]:
    padded = f"^{word}$"
    return frozenset(padded[place : place + 3] for place in range(len(padded) - 2))


# Answers and refusals

_OPENS_ANSWER = re.compile(
    r"(?i)^\W*(?:sure|certainly|of course|absolutely|definitely)[,!.:]"
    r"|^\W*(?:here(?:'s| is| are)(?! (?:my|our|one|what I)\b)|below (?:is|are)|the following (?:is|are))\b"
    r"|^\W*(?:step (?:1|one)\b|firstly?,)"
    r"|^\W*(?:great|good|excellent|interesting) question\b"
)
_ITEM = re.compile(r"(?m)^\s*(?:\d{1,2}[.)]|[-*\u2022]|step \d+:?)\s+(.*)$", re.I)
_FEWEST_ITEMS = 3
_LONGER, _LONGER_WORDS = 3, 120
"""A variant of more than so many times its seed's words, and so many more, is an answer or holds one."""
_AFTER_WORDS = 25
"""More words than this after the request, beyond what the seed has there, are an answer to it."""
_COMPLETE = 0.95
_ASKING = re.compile(
    r"(?i)\b(?:please|pls|tell|explain|let (?:me|us) know|lemme|gimme|(?:give|help|show|hook|get) (?:me|us)|"
    r"I(?:'d| would| should| must| have to)? (?:need|want|wish|know|like|love|be (?:grateful|obliged))|"
    r"(?:can|could|would|will|won't) you|answer|repl(?:y|ies)|(?:ask|demand|beg|request|want|require)s?|"
    r"lend a hand|hmu|lmk|spit|tips|anyone know)\b"
    r"|(?:^|[.!?,;:\"'\n])\W*(?:(?:so|and|but|yo|ok|okay|hey|um|well|aight|bruh)\W+)*"
    r"(?:how|what|when|where|why|which|who)\b"
)
_NEGATED = re.compile(r"(?i)\b(?:can(?:no|')?t|can not|won't|unable|not able|couldn't)\b")
_NOT_REWRITTEN = re.compile(
    r"(?i)\bI\s*(?:'m|am)?\s*(?:sorry[^.]{0,40}?\s)?"
    r"(?:can(?:no|')t|can not|won't|will not|unable to|not able to|decline to)\s(?:\w+\s){0,2}?"
    r"(?:rewrite|rephrase|reword|restyle|paraphrase|transform|convert|fulfil)"
)


def _answers(seed: str, variant: str) -> bool:
    if _OPENS_ANSWER.match(variant) and not _OPENS_ANSWER.match(seed):
        return True
    if len(variant.split()) > _LONGER * len(seed.split()) + _LONGER_WORDS:
        return True
    if _words_after(seed, variant) - _words_after(seed, seed) > _AFTER_WORDS:
        return True
    if not _asks(seed, variant):
        return True
    items = _ITEM.findall(variant)
    if len(items) < _FEWEST_ITEMS or len(_ITEM.findall(seed)) >= _FEWEST_ITEMS:
        return False
    # A list of tasks holds the request as one of them; an answer's list doesn't.
    return all(content_held(seed, item) < _HOLDS for item in items)


def _words_after(seed: str, variant: str) -> int:
    """Words after the sentence with which the seed's content is complete: an answer follows the request."""
    parts = re.split(r"(?<=[.?!:])\s+|\n+", variant)
    whole = content_held(seed, variant)
    for place in range(1, len(parts)):
        if content_held(seed, " ".join(parts[:place])) >= _COMPLETE * whole:
            return sum(len(part.split()) for part in parts[place:])
    return 0


def _asks(seed: str, variant: str) -> bool:
    """Whether a text can be a request: it has a question mark, the seed or its opening word, or words that ask."""
    plain_seed, plain = ("".join(filter(str.isalnum, text.lower())) for text in (seed, variant))
    if plain_seed in plain:  # a seed that states what is wanted does so in any context
        return True
    opening = _words(seed)[:1]
    there = frozenset(_words(variant))
    return "?" in variant or bool(_ASKING.search(variant)) or any(_found(word, there) for word in opening)
