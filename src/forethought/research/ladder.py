"""An experiment ladder: sweeps that each change one thing at a time, in one folder, with one set of figures at the end.

Their entries share a folder of stages, so that a rung that stands in several sweeps is trained once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.errors import ConfigError, InputError
from forethought.metrics import Figure
from forethought.progress import Progress
from forethought.report.results import write_results
from forethought.research.config import Sweep, load_sweep
from forethought.research.figures import BASE
from forethought.research.kept import Kept
from forethought.research.pages.ladder import Rung, write_ladder_page
from forethought.research.pages.sweep_figures import SweepRow, turned
from forethought.research.report import missing_of, split_of, sweep_figures, sweep_rows, write_sweep
from forethought.research.run import run_cells


@dataclass(frozen=True)
class Ladder:
    """What came of a ladder."""

    rungs: Sequence[Rung]
    reference: str
    page: Path


def ladder_files(folder: Path) -> list[Path]:
    """The sweeps of a folder, in the order of their names. Raises ConfigError where there are none."""
    found = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if not found:
        raise ConfigError(folder, "holds no sweeps (*.yaml)", "Give a folder such as recipes/ladder")
    return found


def load_ladder(folder: Path) -> list[Sweep]:
    """The sweeps of a folder. Raises ConfigError for a fault in any of them, or where their references differ."""
    sweeps = [load_sweep(file) for file in ladder_files(folder)]
    for one in sweeps[1:]:
        if one.reference != sweeps[0].reference:
            raise ConfigError(
                f"sweep '{one.name}', reference: {one.reference}",
                f"{sweeps[0].name} has {sweeps[0].reference}",
                "Set all rungs against the same one",
            )
    return sweeps


def run_ladder(
    sweeps: Sequence[Sweep],
    root: Path,
    results: Path,
    progress: Progress,
    so_far: bool = False,
    kept: Path | None = None,
) -> Ladder:
    """Runs the sweeps with their stages in `root`, and writes all figures to `results`.

    Page and plot go into `root`. With `so_far` nothing is trained or asked: what is done already is told. `kept` is the
    folder of another run.
    """
    logs = _logs(sweeps, kept) if kept is not None else {}
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    inputs: dict[str, str] = {}
    rungs: dict[str, Rung] = {}
    pages: list[tuple[str, str]] = []
    for sweep in sweeps:
        log = logs.get(sweep.name)
        run = run_cells(sweep, root, progress, so_far=so_far, kept=log)
        split = split_of(sweep, run.results)
        rows = sweep_rows(sweep, run, split)
        folder = root / sweep.name
        folder.mkdir(parents=True, exist_ok=True)
        own = write_sweep(sweep, run, rows, split, folder, folder / "results.json").page
        pages.append((sweep.name, own.relative_to(root).as_posix()))
        for figure in sweep_figures(rows):
            figures.setdefault(figure.name, figure)
        missing |= missing_of(rows)
        inputs |= {f"{sweep.name}/{name}": held for name, held in log.inputs.items()} if log is not None else {}
        inputs |= {
            f"{ground.folder.name}/{name}": held for ground in run.grounds for name, held in ground.inputs.items()
        }
        for rung in _rungs(sweep, rows):
            rungs.setdefault(rung.defence, rung)
    seeds = sorted({seed for sweep in sweeps for seed in sweep.seeds})
    write_results(results, seeds, inputs, list(figures.values()), missing)
    shown, reference = list(rungs.values()), sweeps[0].reference
    page = write_ladder_page(root, "What each change gives", shown, reference, pages)
    return Ladder(shown, reference, page)


def _logs(sweeps: Sequence[Sweep], folder: Path) -> dict[str, Kept]:
    """The logs of another run of the ladder, by sweep. Raises InputError where there are none."""
    found = {sweep.name: Kept(folder / sweep.name) for sweep in sweeps if (folder / sweep.name).is_dir()}
    if not found:
        raise InputError(folder, "holds no log of this ladder's sweeps", "Give the folder of a ladder that was run")
    return found


def _rungs(sweep: Sweep, rows: Sequence[SweepRow]) -> list[Rung]:
    """One entry a defence; figures of the first seed and base, since a ladder has one of each."""
    entries = {entry.label: entry for entry in sweep.methods}
    reference = next((row for row in rows if row.defence == sweep.reference and not row.missing), None)
    found: dict[str, Rung] = {}
    for row in rows:
        if row.defence in found:
            continue
        entry = entries.get(row.defence)
        before = entry.after or entry.weights_of if entry is not None else ""
        if before == sweep.reference:
            before = ""
        found[row.defence] = Rung(
            defence=row.defence,
            part=sweep.name,
            why=entry.why if entry is not None else "the undefended model" if row.defence == BASE else "",
            before=before,
            figures={figure.name: figure for figure in row.figures},
            against=_against(row, reference),
            gained=_differences(row, f"_{row.defence}_vs_{before}") if before else {},
            missing=row.missing,
        )
    return list(found.values())


def _against(row: SweepRow, reference: SweepRow | None) -> dict[str, Figure]:
    """The differences that the reference's row holds with this defence, the other way round."""
    if reference is None or row.defence == reference.defence:
        return {}
    held = _differences(reference, f"_{reference.defence}_vs_{row.defence}")
    return {name: turned(figure) for name, figure in held.items()}


def _differences(row: SweepRow, ending: str) -> dict[str, Figure]:
    """The row's differences with another, by figure."""
    return {
        figure.name.removeprefix("diff_").removesuffix(ending): figure
        for figure in row.figures
        if figure.name.startswith("diff_") and figure.name.endswith(ending)
    }
