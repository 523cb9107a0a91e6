"""Every attempt of a run on its page: to filter, search, set side by side, link to and export, without a network.

A browser lets no page that was opened from a file read another file; a script beside it it does. So all stands in one
script, `report.attempts.js` beside `report.html`: the data grid AG Grid Community 36.2.0 as it is published (MIT, with
its licence), what the page does with it (`explorer.js`), and the attempts as JSON; grid and JSON are compressed. A page
without that script is whole but for its transcripts. A harmful text is in the script only where it was asked for,
redacted else.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from forethought.attempts.records import Attempt, Judged
from forethought.manifest import write_whole
from forethought.policy import Policy
from forethought.redaction import printable, shown
from forethought.report.tables import attack_title

_DECISIONS = (None, "comply", "refuse")


class Side(NamedTuple):
    """One system's judged attempts. Those of several systems with one id stand side by side."""

    title: str
    judged: Iterable[Judged]
    threshold: float | None = None
    """The score from which it refuses. Where it isn't known, or its decisions say otherwise, it is read off those."""


class Transcripts(NamedTuple):
    """What a page's template has to know of them."""

    file: str
    """Name of the script beside the page."""
    attempts: int
    shows_harmful: bool
    """Whether harmful texts are in it, for a reader to reveal."""


def write_transcripts(page: Path, sides: Sequence[Side], policy: Policy, show_harmful: bool = False) -> Transcripts:
    """Writes the attempts beside their page, whole or not at all."""
    table = _Table(show_harmful)
    for side in sides:
        table.add(side)
    file = page.with_name(f"{page.stem}.attempts.js")
    titles = {rule.id: rule.title for rule in policy.rules}
    folder = resources.files("forethought").joinpath("report", "explorer")
    licence, grid, code = (
        folder.joinpath(name).read_text("utf-8") for name in ("ag-grid.LICENSE", "ag-grid.js", "explorer.js")
    )
    held = [grid, *map(_as_json, (table.content(titles), table.texts.shown, table.texts.harmful))]
    data = ",\n".join(f'"{_packed(part)}"' for part in held)
    write_whole(file, f"/*! AG Grid Community 36.2.0. {licence}*/\n{code}\nexplore(\n{data}\n);\n")
    return Transcripts(file.name, len(table.rows["system"]), show_harmful)


def _as_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode("ascii")


class _Once:
    """Values in the order in which they came, each once."""

    def __init__(self) -> None:
        self._places: dict[Hashable, int] = {}

    def place(self, value: Hashable) -> int:
        """Where it stands."""
        return self._places.setdefault(value, len(self._places))

    @property
    def values(self) -> list[Any]:
        """All of them."""
        return list(self._places)


class _Texts:
    """Texts as a person gets them, and apart from them what is behind the redacted ones."""

    def __init__(self, show_harmful: bool) -> None:
        self._show = show_harmful
        self._places: dict[tuple[str, bool], int] = {("", False): 0}
        self.shown = [""]
        self.harmful: dict[int, str] = {}
        """By place, where it may be revealed."""

    def place(self, text: str, harmful: bool | None) -> int:
        """Where a text of a request with that label stands."""
        key = (text, harmful is not False) if text else ("", False)
        place = self._places.setdefault(key, len(self.shown))
        if place == len(self.shown):
            self.shown.append(shown(text, harmful, False))
            if self._show and harmful is not False:
                self.harmful[place] = printable(text)
        return place


class _Table:
    """The attempts as columns: what was asked, each once, and what each system said to it."""

    def __init__(self, show_harmful: bool) -> None:
        self.texts = _Texts(show_harmful)
        self._systems: list[dict[str, Any]] = []
        self._attacks, self._categories, self._rules, self._causes = (_Once() for _ in range(4))
        self._asked = _Once()
        self.asked: dict[str, list[Any]] = {
            name: [] for name in ("id", "seed", "attack", "category", "harmful", "rules", "text", "plain", "prefill")
        }
        self.rows: dict[str, list[Any]] = {
            name: []
            for name in ("asked", "system", "refused", "decision", "score", "rules", "thought", "answer", "cause")
        }

    def add(self, side: Side) -> None:
        """Goes once through what a system said."""
        low, high = float("-inf"), float("inf")  # scores that it let pass, and that it refused
        number = len(self._systems)
        for one in side.judged:
            said, harmful = one.response, one.attempt.request.harmful
            score = said.log_odds if said is not None and math.isfinite(said.log_odds or 0.0) else None
            decision = None if said is None else said.decision
            if score is not None and decision is not None:
                low, high = (max(low, score), high) if decision == "comply" else (low, min(high, score))
            row = {
                "asked": self._place(one.attempt),
                "system": number,
                "refused": None if one.refused is None else int(one.refused),
                "decision": _DECISIONS.index(decision),
                "score": None if score is None else round(score, 4),
                "rules": self._rules.place(() if said is None else said.rules_named),
                "thought": 0 if said is None else self.texts.place(said.reasoning_text, harmful),
                "answer": 0 if said is None else self.texts.place(said.answer, harmful),
                "cause": self._causes.place(one.cause),
            }
            for name, value in row.items():
                self.rows[name].append(value)
        scored = math.isfinite(low) or math.isfinite(high)
        limit = side.threshold if side.threshold is not None and math.isfinite(side.threshold) else None
        known = limit is not None and scored and low < limit <= high
        if not known:
            limit = (low + high) / 2 if math.isfinite(high - low) and low <= high else None
        self._systems.append({"title": side.title, "threshold": limit, "known": known})

    def _place(self, attempt: Attempt) -> int:
        place, request = self._asked.place(attempt.id), attempt.request
        if place == len(self.asked["id"]):
            turns = [f"{one.role}: {one.content}" for one in request.messages]
            text = request.text if len(turns) == 1 else "\n\n".join(turns)
            row = {
                "id": attempt.id,
                "seed": request.seed_id,
                "attack": self._attacks.place(attempt.attack),
                "category": self._categories.place(request.categories or (request.kind,)),
                "harmful": None if request.harmful is None else int(request.harmful),
                "rules": self._rules.place(request.rules),
                "text": self.texts.place(text, request.harmful),
                "plain": self.texts.place(request.plain if request.plain != text else "", request.harmful),
                "prefill": self.texts.place(attempt.prefill, request.harmful),
            }
            for name, value in row.items():
                self.asked[name].append(value)
        return place

    def content(self, titles: Mapping[str, str]) -> dict[str, Any]:
        """All but the texts, as the page reads it."""
        return {
            "systems": self._systems, "attacks": [attack_title(one) for one in self._attacks.values],
            "categories": self._categories.values, "rules": self._rules.values,
            "causes": [printable(one) for one in self._causes.values],
            "titles": dict(titles), "asked": self.asked, "rows": self.rows,
        }  # fmt: skip
