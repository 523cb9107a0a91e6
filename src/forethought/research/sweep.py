"""A whole sweep or study: its cells are run, and what they gave is written as figures and a page."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from forethought.attacks.templates import read_templates
from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.measure.curves import too_many_unscored
from forethought.metrics import Figure
from forethought.pipeline.recipe import STYLED_LOOKALIKES
from forethought.progress import Progress
from forethought.records import write_jsonl
from forethought.report.figures import BASE
from forethought.report.results import write_results
from forethought.research.config import PROMPT, Benchmark, Sweep, check, lenders, wrapper_label
from forethought.research.figures import contrast_figures, missing_of, split_of, sweep_figures, sweep_rows
from forethought.research.log import Log, write_log
from forethought.research.report import PAGE, write_sweep_page
from forethought.research.rows import SweepRow
from forethought.research.run import run_cells
from forethought.research.table import Reached, reached


@dataclass(frozen=True)
class SweepReport:
    """What a sweep found, and where it is written."""

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
    return SweepReport(rows, goals, doubtful, inputs, own / PAGE, target)


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
    if changes:
        changes["n_styled_lookalike"] = sweep.evaluate.n_styled_lookalike or STYLED_LOOKALIKES
    changes["instead"] = bool(changes)
    changed = sweep.model_copy(update={"evaluate": sweep.evaluate.model_copy(update=changes)})
    check(changed)
    return changed


# Several cells at once, each in a process with its share of cores, or a GPU of its own.
#
# Workers run `forethought sweep FILE --only DEFENCE` and leave their stages in the sweep's folder. What they could not
# finish the sweep itself does again afterwards, and says why.

LOGS = "workers"
"""In the sweep's folder: what each worker printed."""
_PARENT = "FORETHOUGHT_PARENT"


def cells_for_workers(sweep: Sweep) -> list[str]:
    """Defences that workers may do. One that shares another's weights waits until those are there."""
    methods = [entry.label for entry in sweep.methods if not lenders(sweep, [entry.label])]
    return [*([PROMPT] if sweep.prompts else []), *map(wrapper_label, sweep.wrappers), *methods]


def run_workers(sweep: Sweep, file: Path, root: Path, n: int, progress: Progress) -> None:
    """Does the cells of a sweep with `n` processes at once; returns when all have ended, well or not."""
    labels, gpus = cells_for_workers(sweep), _gpus()
    shares: queue.Queue[Mapping[str, str]] = queue.Queue()
    """Of the machine: cores for each worker, and where there are GPUs, one of them."""
    for number in range(n):
        own = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // n)), _PARENT: str(os.getpid())}
        shares.put(os.environ | own | ({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}))
    (root / LOGS).mkdir(parents=True, exist_ok=True)

    def one(label: str) -> tuple[str, int, float]:
        share, began = shares.get(), time.monotonic()
        try:
            command = [sys.executable, "-m", "forethought", "sweep", str(file), "--out", str(root), "--only", label]
            with (root / LOGS / f"{label}.log").open("w", encoding="utf-8") as log:
                done = subprocess.run(
                    [*command, "--yes"], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=share,
                    check=False,
                )  # fmt: skip
            return label, done.returncode, time.monotonic() - began
        finally:
            shares.put(share)

    with progress.bar("defences") as bar, ThreadPoolExecutor(n) as pool:
        bar.total(len(labels))
        for running in as_completed([pool.submit(one, label) for label in labels]):
            label, code, seconds = running.result()
            bar.advance(1)
            how = "done" if code == 0 else f"ended with {code}, see {LOGS}/{label}.log"
            progress.say(f"{label}: {how} [dim]({seconds:.0f} s)[/dim]")


def _gpus() -> Sequence[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one for one in given.split(",") if one]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def end_with_parent(end: Callable[[int], None] = os._exit) -> None:
    """In a worker: ends it when the sweep that started it is gone, so that a killed sweep leaves nobody writing."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        end(1)

    threading.Thread(target=watch, daemon=True).start()
