"""The page of a sweep: what it found, as an evaluation of all its defences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from forethought.attempts.records import Judged
from forethought.judges.known import KnownError
from forethought.metrics import Figure
from forethought.report.attack_figures import SearchResult, search_results
from forethought.report.decision import Evaluation, Paired, System
from forethought.report.evaluation_page import made_by, measured_by, policy_rules, write_evaluation_page
from forethought.report.figures import BASE, judge_error
from forethought.report.tables import titled
from forethought.report.transcripts import Side
from forethought.research.cell import Cell, SweepRun
from forethought.research.config import Sweep
from forethought.research.figures import Split
from forethought.research.rows import (
    RANKED_BY,
    YARDSTICK,
    DefenceMeans,
    SweepRow,
    best,
    by_base,
    paired_to,
    to_best,
)
from forethought.research.table import Reached, goal_lines, unscored

PAGE = "report.html"


def notes_of(sweep: Sweep, split: Split) -> list[str]:
    """What a reader has to know beside the numbers."""
    unseen = ", ".join(split.unseen) or "none"
    said = [
        f"Means are over the styles that no defence was trained on and the base model can read: {unseen}",
        f"Each style: {sweep.evaluate.n_styled} harmful and as many harmless requests"
        + (f", {alike} look-alikes with their twins" if (alike := sweep.evaluate.n_styled_lookalike) else ""),
    ]
    if split.apart:
        apart = ", ".join(split.apart)
        said.append(f"Reported apart, as seen in training or not understood by the base model: {apart}")
    if split.reasoning_seen:
        seen = ", ".join(split.reasoning_seen)
        said.append(f"Attacks on reasoning that a defence was trained on, reported apart: {seen}")
    return said


def sweep_page(
    rows: Sequence[SweepRow],
    groups: Mapping[str, Sequence[str]],
    notes: Sequence[str] = (),
    goals: Sequence[Reached] = (),
    reference: str = "",
    run: SweepRun | None = None,
    judge: KnownError | None = None,
    lineage: Sequence[tuple[str, str]] = (),
) -> list[Evaluation]:
    """A sweep's rows as an evaluation for each base model.

    `groups` are its attacks by where they are reported, `notes` sentences that a reader has to know before trusting a
    number, `goals` what was asked for. `reference` is the defence that is decided on; the best by Youden's J where it
    has no figures. `run` has the attempts and searches of all cells. Raises InputError where a run is there twice.
    """
    parts: list[Evaluation] = []
    for base, means in by_base(rows).items():
        cells = [one for one in run.cells if one.base == base] if run is not None else []
        labels = {one.defence: one.label for one in means if one.runs}
        top = best(means, RANKED_BY)
        ours = labels.get(reference) or (top.label if top is not None else "")
        against = next((labels[one] for one in (YARDSTICK, BASE) if labels.get(one, ours) != ours), "")
        found = Evaluation(
            systems=[_system(one, cells) for one in means],
            ours=ours,
            against=against,
            heading=base,
            groups=groups,
            paired=[*_against(means, ours, against), *_to_best(means)],
            goals=goal_lines(goals) if not parts else (),
            readability="Styles are readable where the base model's own answers are to the point, else by attack",
            judge=judge,
            warnings=unscored(means),
            contamination=run.settings[0].contamination if run is not None and run.settings else "",
            lineage=[*lineage, *(("Note", note) for note in notes)],
            rules=policy_rules(run.settings[0].policy) if run is not None and run.settings else (),
        )
        parts.append(measured_by(found))
    return parts


def write_sweep_page(
    path: Path,
    sweep: Sweep,
    run: SweepRun,
    rows: Sequence[SweepRow],
    split: Split,
    goals: Sequence[Reached],
    inputs: Mapping[str, str],
) -> None:
    """Writes the page, whole or not at all; of the same cells the same, byte for byte, wherever it is written."""
    apart = [one for one in split.apart if one not in split.seen]
    groups = {
        "direct": ["direct"], "unseen": split.unseen, "reasoning": split.reasoning,
        "seen": [*(one for one in split.apart if one in split.seen), *split.reasoning_seen], "unreadable": apart,
    }  # fmt: skip
    parts = sweep_page(
        rows, groups, notes_of(sweep, split), goals, sweep.reference, run, judge_error(), lineage_of(run.cells, inputs)
    )
    # Of a log's cells there are no texts to show.
    told = [] if any(one.logged for one in run.cells) else run.cells
    names = [one.place if len(parts) > 1 else (one.defence, f"seed {one.seed}") for one in told]
    sides = [Side(", ".join(map(str, name)), one.judged) for name, one in zip(names, told, strict=True)]
    write_evaluation_page(path, sweep.name, parts, sides, run.settings[0].policy)


def lineage_of(cells: Sequence[Cell], inputs: Mapping[str, str]) -> list[tuple[str, str]]:
    """By which code, when and where the answers were asked; nothing of where and when the page was made."""
    commits = sorted({one.commit for one in cells if one.commit})
    days = sorted({one.finished[:10] for one in cells if one.finished})
    machines = sorted({f"{one.machine['cpu']}, {one.machine['cores']} cores" for one in cells if one.machine})
    code = f"answers were asked by commits {', '.join(commits)}" if commits else "not recorded"
    asked = [("Answers from", f"{days[0]} to {days[-1]}")] if days else []
    return [*made_by(inputs, code), *asked, *([("Machines", "; ".join(machines))] if machines else [])]


def _system(one: DefenceMeans, cells: Sequence[Cell]) -> System:
    """A defence with the means of its figures over seeds."""
    own = [cell for cell in cells if cell.defence == one.defence and cell.budget == one.budget]
    names = dict.fromkeys(figure.name for row in one.runs for figure in row.figures)
    means = {name: mean for name in names if not name.startswith(("diff_", "p_")) and (mean := one.mean(name))}
    figures = {name: mean.figure for name, mean in means.items()}
    # J of a style is the mean over seeds, not of the two means.
    styles = {name.removeprefix("asr_") for name in figures if name.startswith("asr_")}
    joined = {f"youden_{style}": mean.figure for style in sorted(styles) if (mean := one.style_youden(style))}
    if one.runs and one.tokens:
        figures["train_tokens"] = Figure(name="train_tokens", value=one.tokens, unit="tokens")
        figures["train_minutes"] = Figure(name="train_minutes", value=one.minutes or 0.0, unit="minutes")
    judged: list[Judged] = [row for cell in own for row in cell.judged]
    return System(
        name=one.label,
        label=one.label,
        figures=joined | figures,
        title=one.title,
        by_seed={name: _values(one, name) for name in means},
        trainings=len(one.runs) if one.budget else 0,
        judged=judged,
        searches=_searches(own),
        missing=one.missing,
        notes=one.notes,
    )


def _values(one: DefenceMeans, name: str) -> list[float]:
    seeds = [figure.value for row in one.runs if (figure := row.figure(name)) is not None]
    return [value for value in seeds if not math.isnan(value)]


def _searches(cells: Sequence[Cell]) -> list[SearchResult]:
    """One result an adaptive attack, under its own name."""
    found: dict[str, SearchResult] = {}
    for cell in cells:
        for name, outcomes in cell.outcomes.items():
            for result in search_results(outcomes):
                found.setdefault(name, result.model_copy(update={"name": name}))
    return list(found.values())


def _against(means: Sequence[DefenceMeans], ours: str, against: str) -> list[Paired]:
    """What is decided on minus what it has to beat, then every defence minus the yardstick."""
    rows = paired_to(means)
    if any(one.defence == BASE and one.label == against for one in means):
        rows += [row for row in paired_to(means, BASE) if row.of == ours]
    return sorted(rows, key=lambda row: (row.of, row.against) != (ours, against))


def _to_best(means: Sequence[DefenceMeans]) -> list[Paired]:
    """Every other defence minus the best by Youden's J, and by AUROC."""
    found = []
    for stem in (RANKED_BY, "auroc_unseen"):
        if (first := best(means, stem)) is not None:
            of, against = f"{titled(stem)}: each", f"{first.label}, the best of them"
            each = [row.found.model_copy(update={"name": row.of}) for row in to_best(means, stem)]
            found += [Paired(of, against, row) for row in each]
    return found
