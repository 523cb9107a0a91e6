"""Question evolution: a request in another style, its meaning unchanged.

Operators are data (`operators/*.yaml`, `operator.py`). Harmful and harmless requests
get the same styles, so that a style says nothing about harm (the paper left harmless
ones plain, and models learned to refuse the style). Which request gets which style is
drawn apart from the rewriting, so that an LLM can write what rules write here.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from forethought.data.language import language_of
from forethought.data.operator import ANY_LANGUAGE, Demonstration, Operator, load_operators, operator_table
from forethought.data.restyle import RULES, phrase, sentence
from forethought.records import Request

__all__ = [
    "RULES",
    "Demonstration",
    "Operator",
    "apply_style",
    "draw_styles",
    "evolve",
    "load_operators",
    "operator_table",
    "phrase",
    "sentence",
]


def evolve(
    requests: Iterable[Request],
    operators: dict[str, Operator],
    rows_per_seed: float,
    styled_share: float,
    seed: int,
    beside: Iterable[Request] = (),
) -> list[Request]:
    """The requests in the styles that `draw_styles` gives them, written by rule and template."""
    return [
        request if name is None else apply_style(request, operators[name], seed)
        for request, name in draw_styles(requests, operators, rows_per_seed, styled_share, seed, beside)
    ]


def draw_styles(
    requests: Iterable[Request],
    operators: dict[str, Operator],
    rows_per_seed: float,
    styled_share: float,
    seed: int,
    beside: Iterable[Request] = (),
) -> list[tuple[Request, str | None]]:
    """Each request `rows_per_seed` times, with the operator that restyles it; None leaves it as it is.

    A fraction is a chance: 1.5 is one row and, for half of the requests, another. The first
    row is restyled with probability `styled_share`, further ones always, in styles drawn
    without repetition among the operators that apply. The draw depends on the seed and on
    the request (for twins: on the pair) alone: adding requests changes no other row, and a
    harmful request and its look-alike wear the same disguise. Give `beside` the requests
    that are evolved apart from these and may hold their twins: an operator that doesn't
    apply to one twin is then drawn for neither.
    """
    chosen = list(requests)
    fitting = _applicable(chosen, operators, beside)
    drawn: list[tuple[Request, str | None]] = []
    for request, names in zip(chosen, fitting, strict=True):
        rng = random.Random(_key(request, seed))
        count = int(rows_per_seed) + (rng.random() < rows_per_seed % 1)
        plain = rng.random() >= styled_share
        styles: list[str | None] = list(rng.sample(names, min(count, len(names))))
        if count and (plain or not styles):
            styles[:1] = [None]
        drawn += [(request, name) for name in styles]
    return drawn


def apply_style(request: Request, operator: Operator, seed: int) -> Request:
    """The request restyled; the wording depends on the seed, the request (or pair) and the operator alone."""
    # A source of its own for each style, so that twins of other wording still get the same template.
    return operator.apply(request, random.Random(f"{_key(request, seed)}:{operator.name}"))


def _key(request: Request, seed: int) -> str:
    return f"{seed}:{request.twin or request.id}"


def _applicable(
    requests: Sequence[Request], operators: dict[str, Operator], beside: Iterable[Request]
) -> list[list[str]]:
    """For each request the sorted names of the operators that apply to it and to its twins."""
    by_language = any(ANY_LANGUAGE not in operator.languages for operator in operators.values())
    pairs: dict[str, list[tuple[Request, str]]] = defaultdict(list)
    for request in (*requests, *beside):
        language = language_of(request.text) if by_language else ANY_LANGUAGE
        pairs[request.twin or request.id].append((request, language))
    return [
        [
            name
            for name in sorted(operators)
            if all(operators[name].applies(other, language) for other, language in pairs[request.twin or request.id])
        ]
        for request in requests
    ]
