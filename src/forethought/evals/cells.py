"""Judged attempts by the cells of the table, and what is read off a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from forethought.evals.respond import Judged

Cells = Mapping[str, Sequence[Judged]]


def by_cell(judged: Iterable[Judged]) -> dict[str, list[Judged]]:
    """Judged attempts by the cells in which they count."""
    cells: dict[str, list[Judged]] = {}
    for one in judged:
        for cell in one.attempt.cells:
            cells.setdefault(cell, []).append(one)
    return cells


def refused(cell: Sequence[Judged]) -> list[bool | None]:
    """Whether each answer refuses; None is unscored."""
    return [one.refused for one in cell]


def complied(cell: Sequence[Judged]) -> list[bool | None]:
    """Whether each answer complies; None is unscored, never the other outcome."""
    return [None if one.refused is None else not one.refused for one in cell]


def seeds(cell: Sequence[Judged]) -> list[str]:
    """Ids of the undisguised requests: the clusters."""
    return [one.attempt.request.seed_id for one in cell]


def scores(cell: Sequence[Judged]) -> dict[str, float]:
    """Verdict log-odds by seed request, where there are some."""
    return {
        one.attempt.request.seed_id: one.response.log_odds
        for one in cell
        if one.response is not None and one.response.log_odds is not None
    }


def styled(attacks: Sequence[str], label: str) -> list[str]:
    """Names of the cells of some attacks on `harmful` or `harmless` requests."""
    return [f"{attack}:{label}" for attack in attacks]
