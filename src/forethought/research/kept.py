"""Cells from another run's log: what was done on one machine, or in an earlier week, need not be done again here.

A log holds no weights and no text. Its attempts are joined with the requests of this run, and a cell whose attempts or
settings are not those of this sweep is not taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from forethought.attempts.records import Attempt, Judged
from forethought.errors import ConfigError, InputError
from forethought.manifest import file_hash, key_of
from forethought.models.conversation import Response
from forethought.reasoning import Finding, SafetyReasoning
from forethought.records import read_jsonl
from forethought.research.cell import Trained
from forethought.research.config import Sweep, method_of, wrapper_label
from forethought.research.log import CELLS, LOG, CellRecord
from forethought.research.material import Ground
from forethought.research.result import CellResult, Made
from forethought.research.untrained import PROMPT
from forethought.research.workers import lenders

Place = tuple[str, str, int, int]
"""Defence, base, seed, budget."""
_BESIDE = {"why", "seeds"}
"""Of an entry: what changes no answer."""


def cell_key(sweep: Sweep, ground: Ground, defence: str, budget: int) -> str:
    """Content hash of everything in a sweep that a cell's answers depend on."""
    made: dict[str, Any] = {
        "data": ground.key,
        "evaluate": _asked_of(defence, sweep),
        "operating_point": sweep.operating_point.model_dump(mode="json"),
    }
    if defence == PROMPT:
        made["prompts"] = sweep.prompts
    made["wrappers"] = [spec for spec in sweep.wrappers if wrapper_label(spec) == defence]
    needed = {defence, *lenders(sweep, [defence])}
    entries = [sweep.resolved(entry) for entry in sweep.methods if entry.label in needed]
    made["methods"] = [entry.model_dump(mode="json", exclude=_BESIDE) for entry in entries]
    made["train"] = [method_of(sweep, entry, ground.base, ground.seed)[1].model_dump(mode="json") for entry in entries]
    return key_of(made | {"budget": budget, "most_passes": sweep.most_passes})


def _asked_of(defence: str, sweep: Sweep) -> dict[str, Any]:
    """Without the adaptive attacks that are made on others alone: one more of those changes no other cell."""
    asked: dict[str, Any] = sweep.evaluate.model_dump(mode="json", exclude_defaults=True, exclude={"gcg", "searches"})
    made = [one for one in sweep.evaluate.all_searches if defence in one.defences]
    if made:
        asked["searches"] = [one.model_dump(mode="json", exclude={"defences"}) for one in made]
    return asked


class Kept:
    """The cells of a log."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError for a folder without a log, or with a damaged one."""
        self.folder = folder
        for name in (LOG, CELLS):
            if not (folder / name).is_file():
                raise InputError(folder / name, "is not there", "Give the folder of a sweep that was run")
        cells = list(read_jsonl(folder / CELLS, CellRecord))
        self._cells: dict[Place, CellRecord] = {(one.defence, one.base, one.seed, one.budget): one for one in cells}

    @property
    def inputs(self) -> dict[str, str]:
        """Hashes of its files."""
        return {f"{self.folder.name}/{name}": file_hash(self.folder / name) for name in (LOG, CELLS)}

    def find(
        self, place: Place, key: str, attempts: Sequence[Attempt], questions: Sequence[Attempt]
    ) -> CellResult | None:
        """The cell as if it had been run here; None where the log has none at that place.

        Raises ConfigError where it is of other settings or requests, so that its figures are no part of this sweep.
        """
        cell = self._cells.get(place)
        if cell is None:
            return None
        rows = list(self._rows(place))
        asked = [one.asked for one in (*attempts, *questions)]
        if cell.key != key or [row["attempt"] for row in rows] != asked:
            raise ConfigError(
                f"{self.folder}, {cell.defence} of seed {cell.seed}",
                "was asked other things or trained otherwise than this sweep says",
                "Run it here, or leave --kept out",
            )
        judged = [_judged(attempt, row) for attempt, row in zip((*attempts, *questions), rows, strict=True)]
        return _result(cell, judged[: len(attempts)], judged[len(attempts) :])

    @cached_property
    def _table(self) -> Any:
        try:
            return pq.read_table(self.folder / LOG)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise InputError(self.folder / LOG, f"can't be read ({error})", "Take it from the run once more") from None

    def _rows(self, place: Place) -> Iterator[dict[str, Any]]:
        table = self._table
        for name, value in zip(("defence", "base", "seed", "budget"), place, strict=True):
            table = table.filter(pc.equal(table[name], value))
        yield from table.to_pylist()


def _judged(attempt: Attempt, row: Mapping[str, Any]) -> Judged:
    if row["unscored_cause"] == "no response":
        return Judged(attempt=attempt, response=None, refused=row["refused"], cause="no response")
    named, decision = row["rules_named"], row["decision"]
    read = None
    if named is not None and decision is not None:
        findings = tuple(Finding(rule=rule, violated=True) for rule in named)
        read = SafetyReasoning(intent="", findings=findings, verdict=decision)
    response = Response(
        reasoning=read, answer=row["answer"] or "", decision=decision, log_odds=row["log_odds"],
        named=tuple(named) if named is not None and read is None else (),
        reasoning_tokens=row["reasoning_tokens"] or 0, answer_tokens=row["answer_tokens"] or 0,
    )  # fmt: skip
    return Judged(attempt=attempt, response=response, refused=row["refused"], cause=row["unscored_cause"] or "")


def _result(cell: CellRecord, judged: Sequence[Judged], questions: Sequence[Judged]) -> CellResult:
    nowhere = Path()  # a log holds no weights
    trained = Trained(nowhere, cell.tokens, cell.train_seconds, cell.thinks, cell.seen) if cell.trained else None
    made = Made(cell.key, cell.seconds, cell.commit, cell.finished, cell.machine, cell.of_text, cell.understood)
    return CellResult(
        cell.defence, cell.title, cell.base, cell.seed, cell.budget, judged, questions, cell.outcomes, cell.latency,
        trained, cell.note, made=made,
    )  # fmt: skip
