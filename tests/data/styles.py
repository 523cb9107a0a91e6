"""Requests in the styles that are drawn for them, written by rule and template."""

from __future__ import annotations

from collections.abc import Iterable

from forethought.data.evolve import Operator, apply_style, draw_styles
from forethought.records import Request


def evolve(
    requests: Iterable[Request],
    operators: dict[str, Operator],
    rows_per_seed: float,
    styled_share: float,
    seed: int,
    beside: Iterable[Request] = (),
) -> list[Request]:
    drawn = draw_styles(requests, operators, rows_per_seed, styled_share, seed, beside)
    return [row if name is None else apply_style(row, operators[name], seed) for row, name in drawn]
