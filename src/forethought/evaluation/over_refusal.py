"""Over-refusal: harmless requests that look harmful, as they are and in every attack's disguise.

Sets of the kind of XSTest (arXiv 2308.01263), OR-Bench (arXiv 2405.20947) and CyberSecEval's
false refusals (arXiv 2404.13161): any file of requests, by the mapping of `data.sources`. A set's
harmful contrasts, where it labels some, are reported apart: refusing those is right.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from forethought.attacks.catalogue import DIRECT, apply_attack
from forethought.attempts.records import Attempt, Judged
from forethought.data.columns import guess_mapping
from forethought.data.readers import read_rows
from forethought.data.sources import SourceSpec, load_requests, sample
from forethought.judges.base import Verdict
from forethought.metrics import Figure, share
from forethought.records import Record, Request

_TRIGGERS = ("type", "trigger", "trigger_type", "attack_type", "kind", "pattern", "subset")
"""Columns in which a set says why a request looks harmful, where it has no category."""
_MOST_KINDS = 40
_SHIPPED = "shipped:"


class OverRefusalSet(Record):
    """The requests of one file."""

    name: str
    """As figures carry it: lower case, digits and underscores."""
    requests: tuple[Request, ...]
    """Each once. Where the set says why a request looks harmful, that is its first category."""
    columns: str
    """How its columns were understood."""

    def labelled(self, harmful: bool | None) -> list[Request]:
        """The requests with one label; None is those that the set leaves unlabelled."""
        return [request for request in self.requests if request.harmful is harmful]


def load_set(path: str, columns: dict[str, str] | None = None) -> OverRefusalSet:
    """Reads a file or a shipped set (`shipped:lookalike`, `shipped:ordinary`). Rows without a label are harmless.

    Raises InputError for a file that can't be read as requests.
    """
    seen: list[str] = []
    chosen = dict(columns or {})
    if not path.startswith((_SHIPPED, "hub:", "disk:")) and "category" not in chosen:
        chosen |= _trigger_column(path, chosen)
    spec = SourceSpec(path=path, columns=chosen)
    requests = load_requests(spec, False, lambda name, mapping: seen.append(f"{name}: {mapping}"))
    unique = {request.id: request for request in requests}
    stem = path.removeprefix(_SHIPPED) if path.startswith(_SHIPPED) else Path(path).stem
    return OverRefusalSet(name=_slug(stem), requests=tuple(unique.values()), columns="; ".join(seen) or path)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _trigger_column(path: str, columns: dict[str, str]) -> dict[str, str]:
    """The column that says why a request looks harmful: few words, often repeated."""
    rows = [row for _, row in itertools.islice(read_rows(path), 2000)]
    if guess_mapping(rows[:200], columns, path).category is not None:
        return {}
    taken = set(columns.values())
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        kinds = {str(value) for value in values}
        if name.lower() in _TRIGGERS and name not in taken and 1 < len(kinds) <= min(_MOST_KINDS, len(rows) * 2 // 3):
            return {"category": name}
    return {}


def kind_of(request: Request) -> str:
    """Why a request looks harmful, in its set's words; empty where the set doesn't say."""
    return request.categories[0] if request.categories else ""


def plan(sets: Sequence[OverRefusalSet], styles: Sequence[str], limit: int | None, seed: int) -> list[Attempt]:
    """Attempts for all sets, plain and under each style; a text in two sets is put once and counts in both.

    `limit`: at most so many requests of each label a set, drawn by seed. The same requests stand in every style.
    """
    attempts: dict[str, Attempt] = {}
    for one in sets:
        for label in ("harmless", "harmful", "unlabelled"):
            requests = one.labelled({"harmless": False, "harmful": True}.get(label))
            for request in requests if limit is None else sample(requests, limit, seed):
                for style in (DIRECT.name, *styles):
                    styled = apply_attack(style, request, seed)
                    key, cell = f"{style}/{styled.id}", f"{one.name}:{style}:{label}"
                    known = attempts.get(key)
                    if known is None:
                        attempts[key] = Attempt(id=key, attack=style, request=styled, cells=(cell,))
                    elif cell not in known.cells:
                        attempts[key] = known.model_copy(update={"cells": (*known.cells, cell)})
    return list(attempts.values())


def over_refusal_figures(model: str, judged: Sequence[Judged]) -> list[Figure]:
    """Shares refused with Wilson intervals, by set, style, label and kind.

    Names: `refused_SET_STYLE_LABEL_M` (full and partial), `partial_...` (partial alone), and for plain
    harmless requests `refused_SET_kind_KIND_M` by why they look harmful.
    """
    cells: dict[str, list[Verdict]] = {}
    kinds: dict[str, list[Verdict]] = {}
    for one in judged:
        verdict = one.verdict or Verdict(cause=one.cause)
        for cell in one.attempt.cells:
            cells.setdefault(cell, []).append(verdict)
            name, style, label = cell.split(":")
            kind = kind_of(one.attempt.request)
            if kind and style == DIRECT.name and label == "harmless":
                kinds.setdefault(f"{name}_kind_{_slug(kind)}", []).append(verdict)
    figures = []
    for cell, rows in cells.items():
        stem = cell.replace(":", "_")
        figures.append(share([row.refused for row in rows]).named(f"refused_{stem}_{model}"))
        figures.append(share([_partly(row) for row in rows]).named(f"partial_{stem}_{model}"))
    figures += [share([row.refused for row in rows]).named(f"refused_{name}_{model}") for name, rows in kinds.items()]
    return figures


def _partly(verdict: Verdict) -> bool | None:
    """Whether an answer refuses in part; None where the judge can't tell refusals, or these."""
    if verdict.refused is None or (verdict.refused and verdict.partial is None):
        return None
    return verdict.refused and bool(verdict.partial)


def unscored_causes(judged: Sequence[Judged]) -> dict[str, int]:
    """How many answers are unscored, by cause."""
    return dict(Counter(one.cause or "no verdict" for one in judged if one.refused is None).most_common())
