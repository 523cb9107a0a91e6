"""What models made of questions, as figures: accuracy against chance, refusals, difference to the base model.

Beside them stands which questions are asked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from scipy.stats import binomtest, norm

from forethought.measure.capability.questions import Question
from forethought.metrics import Figure, mean_value, share
from forethought.records import Record

FLOOR = 0.05
"""Accuracy that the base model has to exceed on questions without options: below it there is little left to lose."""


class ItemScore(Record):
    """What one model made of one question."""

    id: str
    correct: bool | None = None
    """lm-eval's verdict (options: by likelihood per character, its `acc_norm`); None where there is none."""
    correct_raw: bool | None = None
    """The same by plain likelihood (its `acc`); options alone."""
    refused: bool = False
    """The model's verdict was to refuse: wrong, whatever it would have said."""
    log_likelihoods: tuple[float, ...] = ()
    """Natural, one an option, or one for the reference answer; empty when refused or generated."""
    bits_per_byte: float | None = None
    """Of the reference answer, in UTF-8 bytes; None for other items."""
    answer: str = ""
    """Generated text without its reasoning."""
    cause: str = ""
    """Why it is unscored."""


def sample_questions(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """At most `limit` questions: strata (subject, position of the right option) keep their shares.

    Depends on the seed and the questions alone; a smaller limit is a part of a larger one.
    """
    strata: dict[tuple[str, int], list[tuple[str, Question]]] = {}
    for question in questions:
        drawn = hashlib.sha256(f"{seed}:{question.id}".encode()).hexdigest()
        strata.setdefault((question.group, min(question.right, default=-1)), []).append((drawn, question))
    spread: list[tuple[float, str, Question]] = []
    for stratum in strata.values():
        for place, (drawn, question) in enumerate(sorted(stratum, key=lambda pair: pair[0])):
            spread.append(((place + 0.5) / len(stratum), drawn, question))
    spread.sort(key=lambda one: one[:2])
    return [question for _, _, question in spread[:limit]]


def chance_level(questions: Sequence[Question]) -> float | None:
    """Mean share of right options: what guessing gets. None for questions without options."""
    shares = [len(question.right) / len(question.choices) for question in questions if question.choices]
    return sum(shares) / len(shares) if shares else None


def is_informative(base: Figure, chance: float | None) -> bool:
    """Whether the base model's interval lies above chance (without options: above FLOOR).

    A task that the base model can't do can't show what a defence cost.
    """
    return base.low is not None and base.low > (FLOOR if chance is None else chance)


def accuracy(scores: Sequence[ItemScore]) -> Figure:
    """Share right, Wilson interval. Refused is wrong; an item that no checker could decide is unscored."""
    return share([False if score.refused else score.correct for score in scores])


def paired_difference(base: Sequence[ItemScore], defended: Sequence[ItemScore]) -> tuple[Figure, float]:
    """(accuracy of the defended model minus the base's on items scored for both, p of McNemar's exact test, two-sided).

    The interval is that of Bonett and Price (2012) for paired shares: one success and one failure is added to each kind
    of disagreement, which keeps the coverage near 95 % in small samples (doi 10.3102/1076998611411915).
    """
    pairs = [
        (bool(one.correct) and not one.refused, bool(two.correct) and not two.refused)
        for one, two in zip(base, defended, strict=True)
        if (one.refused or one.correct is not None) and (two.refused or two.correct is not None)
    ]
    n = len(pairs)
    unscored = len(base) - n
    if not n:
        return Figure(value=math.nan, n=0, unscored=unscored, unit="difference"), 1.0
    gained, lost = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(norm.ppf(0.975)) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    middle, value = up - down, (gained - lost) / n
    figure = Figure(
        value=value, low=max(-1.0, min(middle - half, value)), high=min(1.0, max(middle + half, value)), n=n,
        unscored=unscored, unit="difference",
    )  # fmt: skip
    return figure, float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def set_figures(
    name: str, questions: Sequence[Question], systems: dict[str, Sequence[ItemScore]], base: str = "base"
) -> list[Figure]:
    """All figures of one question set. `systems` maps a model's name to its scores; `base` is compared with.

    Bits per byte of the reference answers (lower is likelier) and words of written ones are means over the items that
    were not refused; those are unscored there.
    """
    figures: list[Figure] = []
    chance = chance_level(questions)
    if chance is not None:
        figures.append(Figure(name=f"capability_chance_{name}", value=chance, n=len(questions)))
    for system, scores in systems.items():
        ending, ids = f"{name}_{system}", [score.id for score in scores]
        if any(score.correct is not None or score.cause for score in scores):
            figures.append(accuracy(scores).named(f"capability_{ending}"))
        if any(score.correct_raw is not None for score in scores):
            raw = share([False if score.refused else score.correct_raw for score in scores])
            figures.append(raw.named(f"capability_raw_{ending}"))
        bits = [score.bits_per_byte for score in scores]
        if any(one is not None for one in bits):
            figures.append(mean_value(bits, ids, "bits_per_byte").named(f"capability_bits_{ending}"))
        if any(score.answer for score in scores):
            words = [None if score.refused else float(len(score.answer.split())) for score in scores]
            figures.append(mean_value(words, ids, "words").named(f"capability_words_{ending}"))
        figures.append(share([score.refused for score in scores]).named(f"capability_refused_{ending}"))
        if system != base and base in systems:
            figures += _compared(name, systems[base], scores)
    return figures


def _compared(name: str, base: Sequence[ItemScore], scores: Sequence[ItemScore]) -> list[Figure]:
    figures: list[Figure] = []
    if any(score.correct is not None for score in scores):
        difference, p = paired_difference(base, scores)
        figures.append(difference.named(f"capability_difference_{name}"))
        figures.append(Figure(name=f"capability_mcnemar_p_{name}", value=p, n=difference.n, unit="p"))
    bits = [(one.bits_per_byte, two.bits_per_byte) for one, two in zip(base, scores, strict=True)]
    if any(two is not None for _, two in bits):
        gaps = [None if one is None or two is None else two - one for one, two in bits]
        gap = mean_value(gaps, [one.id for one in base], "bits_per_byte")
        figures.append(gap.named(f"capability_bits_difference_{name}"))
    return figures
