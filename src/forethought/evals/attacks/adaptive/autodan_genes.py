"""AutoDAN's operators on templates (Liu et al. 2023, arXiv 2310.04451): selection, crossover, momentum of words."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence

from forethought.evals.attacks.adaptive.autodan_prototypes import PLACE
from forethought.evals.attacks.adaptive.autodan_words import SYNONYMS, replace_words, words_of

_SENTENCE_END = re.compile(r"(?<=[,.!?])\s+")
_SWAPS = 5
"""Most words replaced in a paragraph, as the paper's code does it."""
_FLOOR = 1e-6
"""Weight of the worst synonym: it is drawn where none is better, and hardly ever otherwise."""


def select(texts: Sequence[str], fitness: Sequence[float], number: int, rng: random.Random) -> list[str]:
    """So many texts drawn with replacement by the softmax of their fitness (the paper's roulette wheel)."""
    best = max(fitness)
    return rng.choices(texts, weights=[math.exp(one - best) for one in fitness], k=number)


def cross(one: str, other: str, points: int, rng: random.Random) -> tuple[str, str]:
    """Two children whose sentences are exchanged between up to `points` cuts in each pair of paragraphs.

    Paragraphs that only the longer text has stay with it. A child that lost the place of the request gets it back
    behind its text, and one that has it twice keeps the first.
    """
    paragraphs = [[_SENTENCE_END.split(part) for part in text.split("\n\n")] for text in (one, other)]
    children: tuple[list[str], list[str]] = ([], [])
    for left, right in zip(*paragraphs, strict=False):
        for child, sentences in zip(children, _cross_paragraph(left, right, points, rng), strict=True):
            child.append(" ".join(sentences))
    shared = len(children[0])
    for child, rest in zip(children, paragraphs, strict=True):
        child.extend(" ".join(sentences) for sentences in rest[shared:])
    return placed("\n\n".join(children[0])), placed("\n\n".join(children[1]))


def _cross_paragraph(left: list[str], right: list[str], points: int, rng: random.Random) -> tuple[list[str], list[str]]:
    most = min(len(left), len(right)) - 1
    cuts = sorted(rng.sample(range(1, most + 1), min(points, most)))
    bounds = [0, *cuts, None]
    new_left: list[str] = []
    new_right: list[str] = []
    for start, end in itertools.pairwise(bounds):
        first, second = (left, right) if rng.random() < 0.5 else (right, left)
        new_left += first[start:end]
        new_right += second[start:end]
    return new_left, new_right


def placed(text: str) -> str:
    """The text with the place of the request in it exactly once."""
    head, found, tail = text.partition(PLACE)
    return head + found + tail.replace(PLACE, "this") if found else f"{text}\n\n{PLACE}"


def momentum(words: Mapping[str, float], texts: Sequence[str], fitness: Sequence[float], keep: int) -> dict[str, float]:
    """The words' scores after a generation: the mean of a word's old score and of the fitness of texts that hold it.

    The `keep` best are kept. Only words that have synonyms are scored: no other is ever asked for.
    """
    found: dict[str, list[float]] = {}
    for text, one in zip(texts, fitness, strict=True):
        for word in dict.fromkeys(words_of(text)):
            found.setdefault(word, []).append(one)
    scores = dict(words)
    for word, all_of_it in found.items():
        mean = sum(all_of_it) / len(all_of_it)
        scores[word] = (scores[word] + mean) / 2 if word in scores else mean
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return dict(ranked[:keep])


def with_better_words(text: str, words: Mapping[str, float], chance: float, rng: random.Random) -> str:
    """The text with words replaced, each with the chance, by synonyms drawn by their scores; at most 5 a paragraph.

    A synonym without a score counts as the worst that has one.
    """
    return "\n\n".join(_better_paragraph(paragraph, words, chance, rng) for paragraph in text.split("\n\n"))


def _better_paragraph(paragraph: str, words: Mapping[str, float], chance: float, rng: random.Random) -> str:
    worst = min(words.values(), default=0.0)
    replaced = 0

    def choose(word: str) -> str | None:
        nonlocal replaced
        if replaced >= _SWAPS or rng.random() >= chance:
            return None
        replaced += 1
        synonyms = SYNONYMS[word]
        return rng.choices(synonyms, weights=[words.get(other, worst) - worst + _FLOOR for other in synonyms])[0]

    return replace_words(paragraph, choose)
