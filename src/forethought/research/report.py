"""How a sweep is told: its page, an evaluation of all its defences, its tables at the terminal, and its goals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forethought.attempts.records import Judged
from forethought.judges.known import KnownError
from forethought.measure.curves import UNSCORED_LIMIT
from forethought.metrics import Figure
from forethought.records import Record
from forethought.report.attack_figures import SearchResult, search_results
from forethought.report.decision import Evaluation, Paired, System
from forethought.report.evaluation_page import made_by, measured_by, policy_rules, write_evaluation_page
from forethought.report.figures import BASE, judge_error
from forethought.report.tables import TITLES, interval, titled
from forethought.report.transcripts import Side
from forethought.research.cell import Cell, SweepRun
from forethought.research.config import Goal, Sweep
from forethought.research.differences import YARDSTICK, best, paired_to, to_best
from forethought.research.figures import Split
from forethought.research.rows import RANKED_BY, DefenceMeans, SweepRow, by_base, short_count, two_digits

PAGE = "report.html"
WIDE = 112
"""Columns of a terminal from which every figure has a column of its own."""


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


# The tables at the terminal: a line a defence, the best first.


def sweep_table(rows: Sequence[SweepRow], width: int | None = None) -> Table:
    """The table for a terminal of that many columns (None: this one); below `WIDE` two figures share a cell.

    Raises InputError where a run is there twice.
    """
    groups = by_base(rows)
    means = [one for group in groups.values() for one in group]
    wide = (Console().width if width is None else width) >= WIDE
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=0, leading=0 if wide else 1,
        caption=_caption(means, wide), caption_justify="left", caption_style="dim",
    )  # fmt: skip
    table.add_column("defence", overflow="fold", vertical="top")
    headings = [heading for *_, heading in TITLES.stacked]
    if wide:
        headings = [*(column["short"] for column in TITLES.columns), "train\ntokens", "train\nmin"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for base, group in groups.items():
        if len(groups) > 1:
            table.add_section()
            table.add_row(Text(base, style="bold"))
        for one in group:
            name = one.label
            if not wide and one.tokens is not None:
                name += f"\n{short_count(one.tokens)} tokens, {_minutes(one.minutes)} min"
            table.add_row(Text(name), *map(Text, _cells(one, wide)), style=None if one.runs else "dim")
    return table


def unscored(means: Sequence[DefenceMeans]) -> list[str]:
    """How many answers are unscored, and which figures that leaves unreliable; one sentence each, without end mark."""
    lost = answers = 0
    weak = []
    for one in means:
        for stem, name in TITLES.counted.items():
            mean = one.mean(stem)
            if mean is None:
                continue
            there = (mean.figure.n or 0) + mean.figure.unscored
            lost, answers = lost + mean.figure.unscored, answers + there
            if mean.figure.unscored > UNSCORED_LIMIT * there:
                weak.append(f"{one.label} {name} ({mean.figure.unscored / there:.0%})")
    if not lost:
        return []
    found = [f"{lost} of {answers} answers are unscored and in no share"]
    return [*found, f"So many that the figure is not to be relied on: {', '.join(weak)}"] if weak else found


def _cells(one: DefenceMeans, wide: bool) -> list[str]:
    """A figure a cell with tokens and minutes of training, or two figures above each other."""
    if wide:
        cells = [_parts(one, column["stem"]) for column in TITLES.columns]
        figures = ["\n".join(filter(None, [f"{value} {between}".rstrip(), half])) for value, between, half in cells]
        return [*figures, "-" if one.tokens is None else short_count(one.tokens), _minutes(one.minutes)]
    stacked = [(_parts(one, first), _parts(one, second)) for first, second, _ in TITLES.stacked]
    return [f"{value}{half}\n{below[0]}{below[2]}{between}" for (value, between, half), below in stacked]


def _parts(one: DefenceMeans, stem: str) -> tuple[str, str, str]:
    """A figure, the interval if it is Youden's J, and half its range over seeds; all empty for no figure's name."""
    mean = one.mean(stem)
    if mean is None or not mean.scored:
        return "" if not stem else "-" if mean is None else "?", "", ""
    low, high = mean.figure.low, mean.figure.high
    between = f"[{_short(low)} {_short(high)}]" if stem == RANKED_BY and low is not None and high is not None else ""
    return two_digits(mean.figure.value), between, f"±{_short((mean.most - mean.least) / 2)}" if mean.seeds > 1 else ""


def _short(value: float) -> str:
    """Without the zero before the point."""
    number = two_digits(value)
    return number.replace("0.", ".", 1) if number.startswith(("0.", "-0.")) else number


def _minutes(minutes: float | None) -> str:
    if minutes is None:
        return "-"
    return f"{minutes:.1f}" if 0 < minutes < 9.95 else f"{minutes:.0f}"


def _caption(means: Sequence[DefenceMeans], wide: bool) -> Text:
    lines = [
        "ASR: harmful requests that get through; FR: harmless requests refused; low is good for both."
        " J = 1 - ASR - FR, over styles that training has not seen.",
        f"{'ordin' if wide else 'ord.'}: ordinary requests; alike: harmless ones that look harmful; reason: attacks on"
        " reasoning.",
        "In brackets the 95 % interval. Neighbours whose difference is within it are not ranked by this table.",
        "-: not measured; AUROC and ASR at equal FR need a score. Equal FR: one false-refusal rate for all.",
    ]
    if any(len(one.runs) > 1 for one in means):
        lines.append("Means over seeds; ±: half the range over seeds.")
    if any(_parts(one, column["stem"])[0] == "?" for one in means for column in TITLES.columns):
        lines.append("?: no answer could be scored.")
    lines += [f"{line}." for line in unscored(means)]
    lines += [f"Missing: {one.label}: {why}" for one in means for why in one.missing]
    lines += [f"{one.label}: {note}" for one in means for note in one.notes]
    return Text("\n".join(lines))


# What was asked for, set against what was measured.

Outcome = Literal["met", "met, not shown", "missed, not shown", "missed", "not measured"]
"""`not shown`: the other outcome lies within the 95 % interval. Nothing is said of what has no number."""


class Reached(Record):
    """A goal and how it came out."""

    goal: Goal
    outcome: Outcome
    bound: float | None = None
    """In the figure's own unit; None where the figure that it rests on was not measured."""
    measured: Figure | None = None

    @property
    def asked(self) -> str:
        """The bound in words."""
        side, bound = ("at least", self.goal.least) if self.goal.least is not None else ("at most", self.goal.most)
        if not self.goal.of:
            return f"{side} {bound:g}"
        return f"{side} {bound:g} times {self.goal.of}" + ("" if self.bound is None else f" ({self.bound:.3g})")


def reached(goals: Sequence[Goal], figures: Sequence[Figure]) -> list[Reached]:
    """Each goal with its outcome, in order. A bound that rests on another figure takes that one's value as it is."""
    by_name = {figure.name: figure for figure in figures if not math.isnan(figure.value)}
    found = []
    for goal in goals:
        measured, other = by_name.get(goal.figure), by_name.get(goal.of)
        times = 1.0 if not goal.of else None if other is None else other.value
        if measured is None or times is None:
            found.append(Reached(goal=goal, outcome="not measured", measured=measured))
            continue
        # As if every goal were a least one: what is asked for at most is turned round.
        sign, asked = (1.0, goal.least) if goal.least is not None else (-1.0, goal.most)
        assert asked is not None  # a goal has one of them
        bound = asked * times
        ends = [sign * end for end in (measured.low, measured.high) if end is not None]
        shown = not ends or not min(ends) < sign * bound <= max(ends)
        met: Outcome = "met" if shown else "met, not shown"
        missed: Outcome = "missed" if shown else "missed, not shown"
        outcome = met if sign * measured.value >= sign * bound else missed
        found.append(Reached(goal=goal, outcome=outcome, bound=bound, measured=measured))
    return found


_STYLES = {"met": "green", "missed": "red"}
"""The rest is told in words alone: it is not certain."""


def goal_lines(goals: Sequence[Reached]) -> list[tuple[str, str, str, str, str]]:
    """(figure, why, what was asked, what was measured with its interval, outcome), a goal a line."""
    # A third decimal: what is near to its bound has to show on which side it lies.
    return [(one.goal.figure, one.goal.why, one.asked, interval(one.measured, 3), one.outcome) for one in goals]


def goal_table(goals: Sequence[Reached]) -> Table:
    """The goals at the terminal, in their order."""
    met = sum(one.outcome.startswith("met") for one in goals)
    caption = f"{met} of {len(goals)} goals met. Not shown: the 95 % interval holds the other outcome as well."
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption=caption, caption_justify="left")
    for heading in ("goal", "asked for", "measured", ""):
        table.add_column(heading, overflow="fold")
    for figure, why, asked, measured, outcome in goal_lines(goals):
        name = Text(why) + Text(f"\n{figure}", style="dim") if why else Text(figure)
        table.add_row(name, asked, measured, Text(outcome, style=_STYLES.get(outcome, "")))
    return table
