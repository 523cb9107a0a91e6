"""A whole sweep or study: its cells are run, and what they gave is written as figures and a page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rich.text import Text

from forethought.attacks.templates import read_templates
from forethought.cluster import connect
from forethought.cluster.holders import Done, Holders, Lost, Say
from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.measure.curves import too_many_unscored
from forethought.metrics import Figure
from forethought.pipeline.recipe import STYLED_LOOKALIKES
from forethought.progress import Progress
from forethought.records import write_jsonl
from forethought.report.figures import BASE
from forethought.report.results import write_results
from forethought.research.cell import SweepRun
from forethought.research.config import PROMPT, Benchmark, Sweep, check, lenders, wrapper_label
from forethought.research.figures import contrast_figures, missing_of, split_of, sweep_figures, sweep_rows
from forethought.research.log import Log, write_log
from forethought.research.report import PAGE, Reached, reached, write_sweep_page
from forethought.research.rows import SweepRow
from forethought.research.run import run_cells


@dataclass(frozen=True)
class SweepReport:
    """What a sweep found, and where it is written."""

    run: SweepRun
    """Its cells, and what they cost."""
    rows: Sequence[SweepRow]
    """A row a cell."""
    goals: Sequence[Reached]
    doubtful: Sequence[tuple[str, dict[str, float]]]
    """(defence, the cells in which too many of its answers could not be judged, with that share)."""
    inputs: Mapping[str, str]
    """Hashes of what it rests on: the policy, requests and rows, and another run's log."""
    page: Path
    results: Path
    """The figures."""

    @property
    def complete(self) -> bool:
        """Whether every defence is there, and nearly all of their answers could be judged."""
        return not missing_of(self.rows) and not self.doubtful


def run_sweep(
    sweep: Sweep,
    folder: Path | None = None,
    *,
    results: Path | None = None,
    report_in: str = "",
    so_far: bool = False,
    kept: Path | None = None,
    progress: Progress | None = None,
    on: str | None = None,
) -> SweepReport:
    """Trains and attacks every defence of a sweep; writes figures, rows and a page.

    Every stage stays in `folder` (None is runs/NAME): the same call goes on where one was stopped. The report goes
    into its part `report_in`. With `so_far` nothing is done, and what is done already is told. `kept` is the folder of
    another run, or of its committed log, whose cells are taken. `on` has a Ray cluster do the defences, one a worker.
    Raises InputError for a folder without a log.
    """
    folder, progress = folder or Path("runs") / sweep.name, progress or Progress()
    log = Log(kept) if kept is not None else None
    if on is not None and not so_far:
        run_cells(sweep, folder, progress, only=[BASE])  # what all others rest on
        run_on(on, sweep, folder, progress)
    run = run_cells(sweep, folder, progress, so_far=so_far, log=log)
    split = split_of(sweep, run.cells)
    rows = sweep_rows(sweep, run, split)
    own = folder / report_in
    own.mkdir(parents=True, exist_ok=True)
    target = results or own / "results.json"
    inputs = {f"{one.folder.name}/{name}": content for one in run.settings for name, content in one.inputs.items()}
    inputs |= {"policy": run.settings[0].policy.hash} | (log.inputs if log is not None else {})
    figures = sweep_figures(rows)
    figures += [*contrast_figures(sweep, figures), Figure(name="minutes", value=run.seconds / 60, unit="minutes")]
    if run.peak_gib:  # none where every cell comes from a log
        figures.append(Figure(name="peak_gib", value=run.peak_gib, unit="GiB"))
    write_jsonl(own / "rows.jsonl", rows)
    write_log(own, run.cells, sweep.evaluate.attacks)
    write_results(target, list(sweep.seeds), inputs, figures, missing_of(rows))
    goals = reached(sweep.goals, figures)
    write_sweep_page(own / PAGE, sweep, run, rows, split, goals, inputs)
    doubtful = [(one.defence, cells) for one in run.cells if (cells := too_many_unscored(one.judged))]
    return SweepReport(run, rows, goals, doubtful, inputs, own / PAGE, target)


def run_defences(sweep: Sweep, folder: Path | None, only: Sequence[str], progress: Progress | None = None) -> bool:
    """Does the cells of some defences and reports nothing: for one machine of several, or a worker of a sweep.

    Returns whether all are there. Raises ConfigError for a defence that the sweep has not.
    """
    known = sweep.defences
    for name in only:
        if name not in known:
            raise ConfigError(f"--only {name}", "the sweep has no such defence", f"Use one of {', '.join(known)}")
    where = folder or Path("runs") / sweep.name
    run = run_cells(sweep, where, progress or Progress(), [*only, *lenders(sweep, only)])
    return not any(one.missing for one in run.cells)


def asked_otherwise(
    sweep: Sweep,
    benchmark: Sequence[str] = (),
    harmless: Sequence[str] = (),
    lookalikes: Sequence[str] = (),
    styles: Sequence[str] = (),
    templates: Path | None = None,
) -> Sweep:
    """The sweep with other requests or styles put to its defences; training is as it was.

    `benchmark` are requests with labels, or harmful ones beside `harmless` and `lookalikes`; `styles` are attacks, and
    each template of the file `templates` is one more. Raises ConfigError for harmless sets without a benchmark, and
    for a style that there is not.
    """
    if (harmless or lookalikes) and not benchmark:
        raise ConfigError("--benchmark-harmless", "has no harmful requests beside it", "Give them as --benchmark")
    changes: dict[str, object] = {}
    if benchmark:
        given = (tuple(SourceSpec(path=one) for one in paths) for paths in (benchmark, harmless, lookalikes))
        changes["benchmark"] = Benchmark(**dict(zip(("requests", "harmless", "lookalikes"), given, strict=True)))
    if templates is not None:
        styles = [*styles, *(f"templates:{one.name}" for one in read_templates(templates))]
        changes["files"] = {"templates": templates}
    if styles:
        changes["attacks"] = tuple(styles)
    if changes:
        changes["n_styled_lookalike"] = sweep.evaluate.n_styled_lookalike or STYLED_LOOKALIKES
    changes["instead"] = bool(changes)
    changed = sweep.model_copy(update={"evaluate": sweep.evaluate.model_copy(update=changes)})
    check(changed)
    return changed


# Several cells at once, on a cluster: each is a worker's, with a GPU of its own or one core.
#
# Workers leave their stages in the sweep's folder, which all nodes share. What they could not finish the sweep itself
# does again afterwards, and says why.

LOGS = "workers"
"""In the sweep's folder: what was said of each cell that a worker did."""


def cells_for_workers(sweep: Sweep) -> list[str]:
    """Defences that workers may do. One that shares another's weights waits until those are there."""
    methods = [entry.label for entry in sweep.methods if not lenders(sweep, [entry.label])]
    return [*([PROMPT] if sweep.prompts else []), *map(wrapper_label, sweep.wrappers), *methods]


def run_on(on: str, sweep: Sweep, root: Path, progress: Progress) -> None:
    """Does the cells of a sweep on a cluster; returns when all have ended, well or not."""
    labels = cells_for_workers(sweep)
    (root / LOGS).mkdir(parents=True, exist_ok=True)
    with connect(on), progress.bar("defences") as bar, closing(Holders(on, partial(_held, sweep, root))) as holders:
        bar.total(len(labels))
        for label, said in holders.each(_cell, labels, ahead=1):
            if not isinstance(said, Done):
                bar.advance(1)
                progress.say(f"{label}: {said.cause if isinstance(said, Lost) else said}")


def _held(sweep: Sweep, root: Path) -> tuple[Sweep, Path]:
    return sweep, root


def _cell(held: tuple[Sweep, Path], label: str, say: Say) -> None:
    """In a worker: does one cell, and says how it went."""
    (sweep, root), began = held, time.monotonic()
    with (root / LOGS / f"{label}.log").open("w", encoding="utf-8") as log:
        done = run_defences(sweep, root, [label], _Log(log))
    how = "done" if done else f"not done, see {LOGS}/{label}.log"
    say(f"{how} [dim]({time.monotonic() - began:.0f} s)[/dim]")


class _Log(Progress):
    """Writes what is said into a file."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file

    def say(self, line: Any) -> None:
        """One line, without its colours."""
        print(Text.from_markup(line).plain if isinstance(line, str) else line, file=self._file, flush=True)
