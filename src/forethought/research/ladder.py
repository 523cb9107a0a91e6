"""An experiment ladder: sweeps that each change one thing at a time, in one folder, with one set of figures at the end.

Their entries share a folder of stages, so that a step that stands in several sweeps is trained once. Below: its steps,
their table at the terminal, their plot, and the page that has both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forethought.errors import ConfigError, InputError
from forethought.manifest import write_whole
from forethought.metrics import Figure
from forethought.progress import Progress
from forethought.records import Record
from forethought.report.figures import BASE
from forethought.report.page import BEST, INK, ONE, SOFT, Plot, axes_of, errors, write_page
from forethought.report.results import write_results
from forethought.report.tables import TITLES, gain, sign_of
from forethought.research.config import Sweep, load_sweep
from forethought.research.differences import turned
from forethought.research.figures import missing_of, sweep_figures
from forethought.research.report import PAGE
from forethought.research.rows import SweepRow, two_digits
from forethought.research.sweep import run_sweep

PLOT = "gains.svg"
_GAINS = {"auroc_unseen": "AUROC", "youden_unseen": "J"}
"""Figures whose gains are told."""
_COLOURS = {1: ONE, 0: SOFT, -1: BEST}
_NARROW = ("auroc_unseen", "youden_unseen", "refused_ordinary")
_STYLES = {1: "green", 0: "", -1: "red"}
WIDE = 130
"""Columns of the terminal from which there is room for every figure and for what each step changes."""


class Step(Record):
    """One defence of a ladder, beside the one that all steps are set against and the one that it comes after."""

    defence: str
    part: str = ""
    """The sweep that it stands in first."""
    why: str = ""
    before: str = ""
    """The step whose changes it takes over or whose weights it shares; empty where that is the one that all are set
    against, or none."""
    figures: Mapping[str, Figure] = {}
    """By name, without the defence's."""
    against: Mapping[str, Figure] = {}
    """By name: this step minus the reference, on the same requests."""
    gained: Mapping[str, Figure] = {}
    """By name: this step minus `before`."""
    missing: str = ""
    """Why there is nothing."""


class Ladder(NamedTuple):
    """What came of a ladder."""

    steps: Sequence[Step]
    reference: str
    page: Path


def load_ladder(folder: Path) -> list[Sweep]:
    """The sweeps of a folder, in the order of their names. Raises ConfigError where there are none, for a fault in any
    of them, or where their references differ."""
    files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if not files:
        raise ConfigError(folder, "holds no sweeps (*.yaml)", "Give a folder such as recipes/ladder")
    sweeps = [load_sweep(file) for file in files]
    for one in sweeps[1:]:
        if one.reference != sweeps[0].reference:
            raise ConfigError(
                f"sweep '{one.name}', reference: {one.reference}",
                f"{sweeps[0].name} has {sweeps[0].reference}",
                "Set all steps against the same one",
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
    folder of another run. Raises InputError where that holds no log.
    """
    logs = {sweep.name: kept / sweep.name for sweep in sweeps if kept is not None and (kept / sweep.name).is_dir()}
    if kept is not None and not logs:
        raise InputError(kept, "holds no log of this ladder's sweeps", "Give the folder of a ladder that was run")
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    inputs: dict[str, str] = {}
    steps: dict[str, Step] = {}
    pages: list[tuple[str, str]] = []
    for sweep in sweeps:
        taken = logs.get(sweep.name)
        done = run_sweep(sweep, root, report_in=sweep.name, so_far=so_far, kept=taken, progress=progress)
        pages.append((sweep.name, done.page.relative_to(root).as_posix()))
        for figure in sweep_figures(done.rows):
            figures.setdefault(figure.name, figure)
        missing |= missing_of(done.rows)
        inputs |= done.inputs
        for step in _steps(sweep, done.rows):
            steps.setdefault(step.defence, step)
    seeds = sorted({seed for sweep in sweeps for seed in sweep.seeds})
    write_results(results, seeds, inputs, list(figures.values()), missing)
    shown, reference = list(steps.values()), sweeps[0].reference
    return Ladder(shown, reference, write_ladder_page(root, "What each change gives", shown, reference, pages))


def _steps(sweep: Sweep, rows: Sequence[SweepRow]) -> list[Step]:
    """One entry a defence; figures of the first seed and base, since a ladder has one of each."""
    entries = {entry.label: entry for entry in sweep.methods}
    reference = next((row for row in rows if row.defence == sweep.reference and not row.missing), None)
    found: dict[str, Step] = {}
    for row in rows:
        if row.defence in found:
            continue
        entry = entries.get(row.defence)
        before = entry.after or entry.weights_of if entry is not None else ""
        if before == sweep.reference:
            before = ""
        # The reference's row holds its differences with this defence, the other way round.
        against: dict[str, Figure] = {}
        if reference is not None and row.defence != reference.defence:
            held = _differences(reference, f"_{reference.defence}_vs_{row.defence}")
            against = {name: turned(figure) for name, figure in held.items()}
        found[row.defence] = Step(
            defence=row.defence,
            part=sweep.name,
            why=entry.why if entry is not None else "the undefended model" if row.defence == BASE else "",
            before=before,
            figures={figure.name: figure for figure in row.figures},
            against=against,
            gained=_differences(row, f"_{row.defence}_vs_{before}") if before else {},
            missing=row.missing,
        )
    return list(found.values())


def _differences(row: SweepRow, ending: str) -> dict[str, Figure]:
    """The row's differences with another, by figure."""
    held = [figure for figure in row.figures if figure.name.startswith("diff_") and figure.name.endswith(ending)]
    return {figure.name.removeprefix("diff_").removesuffix(ending): figure for figure in held}


# Table, plot and page.


def ladder_table(steps: Sequence[Step], reference: str, width: int | None = None) -> Table:
    """The table, the steps in the order given; those that are missing are told below it. `width` is the terminal's."""
    wide = (Console().width if width is None else width) >= WIDE
    reasons: dict[str, list[str]] = {}
    for step in steps:
        if step.missing:
            reasons.setdefault(step.missing, []).append(step.defence)
    gained = (
        f"Gain: AUROC over unseen styles minus that of {reference}, on the same requests, with its 95 % interval, not"
        " corrected for the number of steps."
    )
    caption = "\n".join([gained, *(f"Missing ({why}): {', '.join(names)}." for why, names in reasons.items())])
    columns = [(name, heading) for name, heading in TITLES.ladder_table.items() if wide or name in _NARROW]
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption_justify="left", caption_style="dim",
        caption=caption,
    )  # fmt: skip
    table.add_column("step", overflow="fold")
    for _, heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gain", no_wrap=True)
    if wide:
        table.add_column("what it changes", overflow="fold", style="dim")
    for step in steps:
        if not step.missing:
            held = [step.figures.get(name) for name, _ in columns]
            cells = ["-" if one is None or math.isnan(one.value) else two_digits(one.value) for one in held]
            over = step.against.get("auroc_unseen")
            told = Text(gain(over), style=_STYLES[0 if over is None else sign_of(over)])
            table.add_row(step.defence, *cells, told, *([step.why] if wide else []))
    return table


def known(figure: Figure | None) -> bool:
    """Whether there is a number to draw."""
    return figure is not None and not math.isnan(figure.value)


def gains(steps: Sequence[Step], reference: str) -> Plot | None:
    """What each step gains over the reference, and over the step before; None where no step has a gain to draw."""
    drawn = [one for one in steps if any(known(one.against.get(stem)) for stem in _GAINS)]
    if not drawn:
        return None
    lines: list[tuple[str, Step | None]] = []
    for part, members in groupby(drawn, key=lambda one: one.part):
        lines += [(part, None), *((one.defence, one) for one in members)]

    def draw() -> Any:
        canvas, axes = axes_of(0.24 * len(lines) + 1.1, len(_GAINS))
        for axis, stem in zip(axes, _GAINS, strict=True):
            axis.axvline(0.0, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
            for place, (_, step) in enumerate(lines):
                _marks(axis, place, step, stem)
            axis.set_title(f"{TITLES.ladder_page[stem]}: gain over {reference}")
            axis.grid(axis="y")
        axes[0].set_yticks(range(len(lines)), [name for name, _ in lines])
        for label, (_, step) in zip(axes[0].get_yticklabels(), lines, strict=True):
            if step is None:
                label.set(fontweight="bold", color=INK)
        axes[0].set_ylim(len(lines) - 0.4, -0.6)
        return canvas

    told = "; ".join(f"{one.defence} {gain(one.against.get('auroc_unseen'))}" for one in drawn)
    return Plot("ladder", f"Gain of {len(drawn)} steps over {reference} in AUROC over unseen styles: {told}.", draw)


def _marks(axis: Any, place: int, step: Step | None, stem: str) -> None:
    """A dot with its interval for the gain over the reference, a hollow diamond for that over the step before."""
    over, since = (step.against.get(stem), step.gained.get(stem)) if step is not None else (None, None)
    if over is not None and known(over):
        look = {"fmt": "o", "color": _COLOURS[sign_of(over)], "elinewidth": 1.2, "zorder": 3}
        axis.errorbar(over.value, place, xerr=errors([over]), markersize=5, **look)
    if since is not None and known(since):
        look = {"markerfacecolor": "none", "markeredgecolor": _COLOURS[sign_of(since)], "zorder": 4}
        axis.plot(since.value, place, "D", markersize=5, **look)


def write_ladder_page(
    folder: Path, title: str, steps: Sequence[Step], reference: str, pages: Sequence[tuple[str, str]]
) -> Path:
    """Writes page and plot into a folder and returns the page. `pages` are (name, link) of each sweep's own."""
    drawn = gains(steps, reference)
    if drawn is not None:
        write_whole(folder / PLOT, drawn.alone())
    else:
        (folder / PLOT).unlink(missing_ok=True)  # an earlier run's
    there = [one for one in steps if not one.missing]
    write_page(
        folder / PAGE,
        "ladder",
        title,
        reference=reference,
        plot_of_gains=drawn,
        gains=_GAINS,
        columns=TITLES.ladder_page,
        parts=[(name, list(members)) for name, members in groupby(there, key=lambda one: one.part)],
        missing=[(one.defence, one.missing) for one in steps if one.missing],
        pages=list(pages),
        gain=gain,
        sign_of=sign_of,
    )
    return folder / PAGE
