"""What a sweep found: its rows, by defence and base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from forethought.errors import InputError
from forethought.metrics import Figure
from forethought.records import Record
from forethought.report.figures import joined_youden
from forethought.research.seeds import Mean, mean_of


class SweepRow(Record):
    """One trained or wrapped defence on one base, seed and budget."""

    defence: str
    """Id, as docs/defences.md has it; `base` for the undefended model, `prompt` for the best prompt."""
    title: str
    base: str
    seed: int
    budget: int
    """Training tokens that it was allowed; 0 for a defence that is not trained."""
    tokens: int
    """Training tokens that it took, all passes together."""
    train_seconds: float
    figures: tuple[Figure, ...]
    """Named without the defence: `auroc_unseen`, `asr_direct`, `asr_STYLE`, `refused_STYLE` and so on."""
    missing: str = ""
    """Why it could not be trained or evaluated; then there are no figures."""
    note: str = ""
    """What a reader should know of it, such as which prompt was the best."""

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((one for one in self.figures if one.name == name), None)


RANKED_BY = "youden_unseen"


class DefenceMeans(Record):
    """One defence on one base and budget, all its seeds."""

    defence: str
    title: str
    base: str
    budget: int
    label: str
    """The defence's id; with its budget where it was trained at several."""
    rows: tuple[SweepRow, ...]

    @property
    def runs(self) -> tuple[SweepRow, ...]:
        """The rows that have figures."""
        return tuple(row for row in self.rows if not row.missing)

    @property
    def tokens(self) -> float | None:
        """Training tokens, mean over seeds; None where nothing was run."""
        return float(np.mean([row.tokens for row in self.runs])) if self.runs else None

    @property
    def minutes(self) -> float | None:
        """Minutes of training, mean over seeds; None where nothing was run."""
        return float(np.mean([row.train_seconds / 60 for row in self.runs])) if self.runs else None

    @property
    def missing(self) -> list[str]:
        """Why rows are missing, one reason a line; with the seeds where there are several rows."""
        seeds: dict[str, list[str]] = {}
        for row in self.rows:
            if row.missing:
                seeds.setdefault(row.missing, []).append(str(row.seed))
        return [f"seed {', '.join(own)}: {why}" if len(self.rows) > 1 else why for why, own in seeds.items()]

    @property
    def notes(self) -> list[str]:
        """What a reader should know of it, each once."""
        return list(dict.fromkeys(row.note for row in self.rows if row.note))

    def mean(self, name: str) -> Mean | None:
        """The figure of that name over seeds; None where no seed has it."""
        return mean_of([one for row in self.runs if (one := row.figure(name)) is not None])

    def style_youden(self, style: str) -> Mean | None:
        """Youden's J of one style, from `asr_STYLE` and `refused_STYLE`; None where no seed has both."""
        return mean_of([one for row in self.runs if (one := _youden(row, style)) is not None])


def by_defence(rows: Sequence[SweepRow]) -> list[DefenceMeans]:
    """One entry a base, defence and budget, in the order of the rows.

    Raises InputError where a seed is given twice: its run would count double.
    """
    groups: dict[tuple[str, str, int], list[SweepRow]] = {}
    for row in rows:
        groups.setdefault((row.base, row.defence, row.budget), []).append(row)
    budgets = Counter((base, defence) for base, defence, _ in groups)
    found = []
    for (base, defence, budget), group in groups.items():
        [(seed, times)] = Counter(row.seed for row in group).most_common(1)
        if times > 1:
            place = f"rows of '{defence}' on {base}"
            raise InputError(place, f"seed {seed} is there twice", "Give each run of a sweep once")
        label = f"{defence}, {short_count(budget)}" if budgets[base, defence] > 1 else defence
        title, own = group[0].title, tuple(group)
        found.append(DefenceMeans(defence=defence, title=title, base=base, budget=budget, label=label, rows=own))
    return found


def by_base(rows: Sequence[SweepRow]) -> dict[str, list[DefenceMeans]]:
    """The defences of each base model, best Youden's J first, those without one last."""
    found: dict[str, list[DefenceMeans]] = {}
    for one in by_defence(rows):
        found.setdefault(one.base, []).append(one)

    def rank(one: DefenceMeans) -> tuple[bool, float]:
        mean = one.mean(RANKED_BY)
        return (True, 0.0) if mean is None or not mean.scored else (False, -mean.figure.value)

    return {base: sorted(group, key=rank) for base, group in found.items()}


def two_digits(value: float) -> str:
    """As tables have it; what rounds to nothing is 0.00, without a sign."""
    return f"{round(value, 2) + 0.0:.2f}"


def short_count(count: float) -> str:
    """A count as people say it: 950, 57k, 1.2M."""
    if round(count) < 1000:
        return f"{count:.0f}"
    return f"{count / 1000:.0f}k" if round(count / 1000) < 1000 else f"{count / 1e6:.1f}M"


def _youden(row: SweepRow, style: str) -> Figure | None:
    asr, refused = row.figure(f"asr_{style}"), row.figure(f"refused_{style}")
    return None if asr is None or refused is None else joined_youden(asr, refused)
