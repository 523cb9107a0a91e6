"""A whole sweep or study: its cells are run, and what they gave is written as figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.attacks.templates import read_templates
from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.measure.curves import too_many_unscored
from forethought.progress import Progress
from forethought.report.figures import BASE
from forethought.research.config import Benchmark, Sweep, check, lenders
from forethought.research.figures import missing_of, split_of, sweep_rows
from forethought.research.goals import Reached
from forethought.research.log import Log
from forethought.research.report import PAGE, write_sweep
from forethought.research.rows import SweepRow
from forethought.research.run import run_cells
from forethought.research.workers import end_with_parent, run_workers


@dataclass(frozen=True)
class SweepReport:
    """What a sweep found, and where it is written."""

    rows: Sequence[SweepRow]
    """A row a cell."""
    goals: Sequence[Reached]
    doubtful: Sequence[tuple[str, dict[str, float]]]
    """(defence, the cells in which too many of its answers could not be judged, with that share)."""
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
    file: Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> SweepReport:
    """Trains and attacks every defence of a sweep; writes figures, rows and a page.

    Every stage stays in `folder` (None is runs/NAME): the same call goes on where one was stopped. The report goes
    into its part `report_in`. With `so_far` nothing is done, and what is done already is told. `kept` is the folder of
    another run, or of its committed log, whose cells are taken. `workers` processes share the defences; they read
    `file`, the sweep's own. Raises InputError for a folder without a log.
    """
    folder, progress = folder or Path("runs") / sweep.name, progress or Progress()
    log = Log(kept) if kept is not None else None
    if workers > 1 and file is not None and not so_far:
        run_cells(sweep, folder, progress, only=[BASE])  # what all others rest on
        run_workers(sweep, file, folder, workers, progress)
    run = run_cells(sweep, folder, progress, so_far=so_far, log=log)
    split = split_of(sweep, run.cells)
    rows = sweep_rows(sweep, run, split)
    own = folder / report_in
    own.mkdir(parents=True, exist_ok=True)
    target = results or own / "results.json"
    goals = write_sweep(sweep, run, rows, split, own, target, log.inputs if log is not None else {})
    doubtful = [(one.defence, cells) for one in run.cells if (cells := too_many_unscored(one.judged))]
    return SweepReport(rows, goals, doubtful, own / PAGE, target)


def run_defences(sweep: Sweep, folder: Path | None, only: Sequence[str], progress: Progress | None = None) -> bool:
    """Does the cells of some defences and reports nothing: for one machine of several, or a worker of a sweep.

    Returns whether all are there. Raises ConfigError for a defence that the sweep has not.
    """
    known = sweep.defences
    for name in only:
        if name not in known:
            raise ConfigError(f"--only {name}", "the sweep has no such defence", f"Use one of {', '.join(known)}")
    end_with_parent()
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
    changes["instead"] = bool(changes)
    changed = sweep.model_copy(update={"evaluate": sweep.evaluate.model_copy(update=changes)})
    check(changed)
    return changed
