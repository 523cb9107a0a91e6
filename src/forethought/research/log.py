"""Every judged attempt of a sweep as one table without a word of text: for whoever wants to recompute its figures.

No request and no thought stands in it, and of answers those to the package's own short questions alone, so that it can
be published whatever the requests were; ids are content hashes, by which somebody who has the requests can join them
again. Beside it lies what else a cell came to, so that another run can take it over: what was done on one machine, or
in an earlier week, need not be done again. A cell whose attempts or settings are not those of a sweep is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from forethought.attempts.records import Attempt
from forethought.attempts.table import CELLS, LOG, PLACE, SCHEMA, judged_of, read_table, row_of
from forethought.errors import ConfigError, InputError
from forethought.manifest import file_hash, key_of, replacing
from forethought.pipeline.fitting import FITS
from forethought.records import read_jsonl, write_jsonl
from forethought.research.cell import Cell
from forethought.research.config import PROMPT, Sweep, lenders, method_of, wrapper_label
from forethought.research.figures import text_figures, understood
from forethought.research.setting import Setting


def cell_key(sweep: Sweep, setting: Setting, defence: str, budget: int) -> str:
    """Content hash of everything in a sweep that a cell's answers depend on."""
    # Without the adaptive attacks that are made on others alone: one more of those changes no other cell.
    asked: dict[str, Any] = sweep.evaluate.model_dump(mode="json", exclude_defaults=True, exclude={"gcg", "searches"})
    if alike := sweep.evaluate.n_styled_lookalike:  # by default some: none is what the first sweeps had
        asked["n_styled_lookalike"] = alike
    searches = [one for one in sweep.evaluate.all_searches if defence in one.defences]
    if searches:
        asked["searches"] = [one.model_dump(mode="json", exclude={"defences"}) for one in searches]
    needed = {defence, *lenders(sweep, [defence])}
    entries = [sweep.resolved(entry) for entry in sweep.methods if entry.label in needed]
    # Another limit of a fusion, and more that a probe is fitted on, change what is fitted alone.
    specs = [entry.around for entry in entries] + [spec for spec in sweep.wrappers if wrapper_label(spec) == defence]
    fits = [fit for spec in specs if (fit := FITS.get(spec.partition("|")[0].strip())) is not None]
    point = sweep.operating_point.applied(fused=any(fit.defence == "fused" for fit in fits))
    made: dict[str, Any] = {
        "data": setting.key,
        "evaluate": asked,
        "operating_point": point.model_dump(mode="json"),
        "wrappers": [spec for spec in sweep.wrappers if wrapper_label(spec) == defence],
        "methods": [entry.model_dump(mode="json", exclude={"why", "seeds"}) for entry in entries],
        "train": [method_of(sweep, one, setting.base, setting.seed)[1].model_dump(mode="json") for one in entries],
        "budget": budget,
        "most_passes": sweep.most_passes,
    }
    made |= sweep.sources_of(entries)
    made |= sweep.fitted_on(*entries) if fits else {}
    return key_of(made | ({"prompts": sweep.prompts} if defence == PROMPT else {}))


def write_log(folder: Path, cells: Sequence[Cell], attacks: Sequence[str]) -> int:
    """Writes attempts and cells of a sweep into `folder`; returns how many attempts there are. `attacks`: styles."""
    rows = [row_of(cell.place, one) for cell in cells for one in (*cell.judged, *cell.questions)]
    with replacing(folder / LOG) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part, compression="zstd")
    write_jsonl(folder / CELLS, [_without_words(one, attacks) for one in cells if one.judged])
    return len(rows)


def _without_words(cell: Cell, attacks: Sequence[str]) -> Cell:
    # The conversation that got through is left out, and causes, which may name a server.
    empty: dict[str, Any] = {"best": None, "best_answer": "", "best_verdict": None, "cause": "", "causes": {}}
    outcomes = {name: tuple(one.model_copy(update=empty) for one in ended) for name, ended in cell.outcomes.items()}
    styles = understood(cell, attacks)
    of_text, known = (
        None if figures is None else tuple(figure for figure in figures if not math.isnan(figure.value))
        for figures in (text_figures(cell), styles)
    )
    return cell.model_copy(update={"outcomes": outcomes, "of_text": of_text, "understood": known})


class Log:
    """What another run wrote, to take cells from. Its attempts are joined with the requests of this one."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError for a folder without a log, or with a damaged one."""
        self.folder = folder
        for name in (LOG, CELLS):
            if not (folder / name).is_file():
                raise InputError(folder / name, "is not there", "Give the folder of a sweep that was run")
        self._cells = {one.place: one for one in read_jsonl(folder / CELLS, Cell)}

    @property
    def inputs(self) -> dict[str, str]:
        """Hashes of its files."""
        return {f"{self.folder.name}/{name}": file_hash(self.folder / name) for name in (LOG, CELLS)}

    def find(self, place: tuple[str, str, int, int], key: str, setting: Setting) -> Cell | None:
        """The cell at a place as if it had been run here; None where the log has none there.

        Raises ConfigError where it is of other settings or requests, so that its figures are no part of this sweep.
        """
        asked = len(setting.attempts)
        found = self.take(place, key, (*setting.attempts, *setting.questions))
        return found and found.model_copy(update={"judged": found.judged[:asked], "questions": found.judged[asked:]})

    def take(self, place: tuple[str, str, int, int], key: str, attempts: Sequence[Attempt]) -> Cell | None:
        """As `find`, of a cell that was asked `attempts`."""
        cell = self._cells.get(place)
        if cell is None:
            return None
        table = self._table
        for name, value in zip(PLACE, place, strict=True):
            table = table.filter(pc.equal(table[name], value))
        rows = table.to_pylist()
        if cell.key != key or [row["attempt"] for row in rows] != [one.asked for one in attempts]:
            raise ConfigError(
                f"{self.folder}, {cell.defence} of seed {cell.seed}",
                "was asked other things or trained otherwise than this sweep says",
                "Run it here, or leave --kept out",
            )
        judged = tuple(judged_of(attempt, row) for attempt, row in zip(attempts, rows, strict=True))
        return cell.model_copy(update={"judged": judged, "logged": True})

    @cached_property
    def _table(self) -> Any:
        return read_table(self.folder)
