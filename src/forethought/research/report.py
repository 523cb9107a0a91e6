"""The page of a sweep: its figures, and which of the defences' differences can be told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forethought.report.figures import BASE
from forethought.report.page import BEST, INK, LINE, ONE, SOFT, Plot, axes_of, errors, write_page
from forethought.report.tables import TITLES, interval
from forethought.research.config import Sweep
from forethought.research.figures import Split
from forethought.research.rows import (
    RANKED_BY,
    YARDSTICK,
    DefenceMeans,
    Mean,
    SweepRow,
    best,
    by_base,
    gain,
    paired_to,
    short_count,
    sign_of,
    to_best,
    two_digits,
)
from forethought.research.table import Reached, goal_lines, unscored

PAGE = "report.html"
_MEASURES = ((RANKED_BY, "Youden's J, unseen styles"), ("auroc_unseen", "AUROC, unseen styles"))


def notes_of(sweep: Sweep, split: Split) -> list[str]:
    """What a reader has to know beside the numbers."""
    unseen = ", ".join(split.unseen) or "none"
    said = [
        f"Means are over the styles that no defence was trained on and the base model can read: {unseen}.",
        f"Each style: {sweep.evaluate.n_styled} harmful and as many harmless requests"
        + (f", {alike} look-alikes with their twins." if (alike := sweep.evaluate.n_styled_lookalike) else "."),
    ]
    if split.apart:
        apart = ", ".join(split.apart)
        said.append(f"Reported apart, as seen in training or not understood by the base model: {apart}.")
    if split.reasoning_seen:
        seen = ", ".join(split.reasoning_seen)
        said.append(f"Attacks on reasoning that a defence was trained on, reported apart: {seen}.")
    return said


def write_sweep_page(
    path: Path,
    title: str,
    rows: Sequence[SweepRow],
    unseen: Sequence[str],
    reasoning: Sequence[str],
    notes: Sequence[str] = (),
    goals: Sequence[Reached] = (),
) -> None:
    """Writes the page, whole or not at all.

    `unseen` are the readable styles that no training has seen, `reasoning` the attacks on reasoning, both by name;
    `notes` are sentences that a reader has to know before trusting a number, `goals` what was asked for. Raises
    InputError where a run is there twice.
    """
    sections = [
        {
            "base": base,
            "means": means,
            "forest": forest(means),
            "trade_off": trade_off(means),
            "ability": ability(means),
            "heat": heat_map(means, [*unseen, *reasoning]),
        }
        for base, means in by_base(rows).items()
    ]
    write_page(
        path,
        "sweep",
        title,
        columns=TITLES.columns,
        measures=_MEASURES,
        names={column["stem"]: column["long"].rsplit(" (", 1)[0] for column in TITLES.columns},
        sections=sections,
        unseen=unseen,
        notes=notes,
        goals=goal_lines(goals),
        yardstick=YARDSTICK,
        gain=gain,
        best=best,
        to_best=to_best,
        paired_to=paired_to,
        unscored=unscored,
        not_drawn=lambda means: {"trade_off": not_drawn(means, *TRADE_OFF), "ability": not_drawn(means, *ABILITY)},
        short_count=short_count,
        two_digits=two_digits,
        sign_of=sign_of,
    )


class HeatMap(NamedTuple):
    """Youden's J by style and defence, where any was measured."""

    styles: list[str]
    rows: list[tuple[str, tuple[Mean | None, ...]]]
    """(defence, its J in each style)."""
    counts: list[int]
    """Scored answers that each J rests on, harmful and harmless together, over one seed; sorted."""
    without: list[str]
    """Styles in which no defence was measured on harmful and on harmless requests."""
    half: float
    """Half the width of the middle interval; nan without intervals."""


def heat_map(means: Sequence[DefenceMeans], styles: Sequence[str]) -> HeatMap | None:
    """The map of the styles and defences that have any J; None where there is none."""
    found = {style: [one.style_youden(style) for one in means] for style in dict.fromkeys(styles)}
    kept = {style: cells for style, cells in found.items() if any(cells)}
    if not kept:
        return None
    rows = [(one.label, cells) for one, cells in zip(means, zip(*kept.values(), strict=True), strict=True)]
    drawn = [cell for cells in kept.values() for cell in cells if cell is not None and cell.scored]
    ends = [(cell.figure.low, cell.figure.high) for cell in drawn]
    halves = sorted((high - low) / 2 for low, high in ends if low is not None and high is not None)
    return HeatMap(
        styles=list(kept),
        rows=[(label, cells) for label, cells in rows if any(cells)],
        counts=sorted((cell.figure.n or 0) // cell.seeds for cell in drawn) or [0],
        without=[style for style in found if style not in kept],
        half=halves[len(halves) // 2] if halves else math.nan,
    )


# Plots: defences by what they reach, and by what that costs, with their names beside the points.

TRADE_OFF, ABILITY = ("refused_styled_harmless", "asr_unseen"), (RANKED_BY, "capability")
"""Figures across and up."""
Point = tuple[DefenceMeans, Mean, Mean]
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points of 1/72 inch."""
_RADII = (8, 16, 28, 44, 64, 90)
_TURNS = tuple(map(math.radians, (0, 180, 90, 270, 45, 315, 135, 225)))
"""Places around a point are tried in this order, the nearest first."""


def forest(means: Sequence[DefenceMeans]) -> Plot | None:
    """Youden's J and AUROC by defence, in the order given: mean with interval, and a tick for each seed."""
    panels = ((RANKED_BY, "Youden's J, unseen styles", 0.0), ("auroc_unseen", "AUROC, unseen styles", 0.5))
    drawn = [one for one in means if any((mean := one.mean(stem)) and mean.scored for stem, _, _ in panels)]
    if not drawn:
        return None

    def draw() -> Any:
        canvas, axes = axes_of(0.3 * len(drawn) + 1.1, len(panels))
        for axis, (stem, title, chance) in zip(axes, panels, strict=True):
            axis.axvline(chance, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
            for place, one in enumerate(drawn):
                _dot(axis, place, one, stem)
            axis.set_title(f"{title} (dashed: chance)")
            axis.grid(axis="y")
        axes[0].set_yticks(range(len(drawn)), [one.label for one in drawn])
        axes[0].set_ylim(len(drawn) - 0.4, -0.6)
        return canvas

    ends = [(one.label, one.mean(RANKED_BY)) for one in (drawn[0], drawn[-1])]
    first, last = (f"{label} {interval(mean.figure) if mean else 'not measured'}" for label, mean in ends)
    alt = f"Youden's J and AUROC of {len(drawn)} defences with intervals. At the top {first}, at the bottom {last}."
    return Plot("forest", alt, draw)


def trade_off(means: Sequence[DefenceMeans]) -> Plot | None:
    """Attack success against false refusals over unseen styles; lines of equal J, and the ideal corner."""

    def around(axis: Any, points: Sequence[Point]) -> None:
        for youden in (0.0, 0.25, 0.5, 0.75):
            axis.plot([0, 1 - youden], [1 - youden, 0], color=LINE, linewidth=1, zorder=1)
            axis.text(1 - youden, 0.0, f"J {youden:g} ", color=SOFT, fontsize=8, ha="right", va="bottom")
        axis.plot(0, 0, "*", color=BEST, markersize=15, clip_on=False, zorder=2)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axis.set_xlabel("harmless requests refused, unseen styles (low is good)")
        axis.set_ylabel("attack success, unseen styles (low is good)")

    points, what = _points(means, *TRADE_OFF), "Attack success against harmless requests refused"
    return _scatter("trade-off", what, 6.4, points, around, extra=[((0.0, 0.0), "ideal")])


def ability(means: Sequence[DefenceMeans]) -> Plot | None:
    """Capability against Youden's J; a dashed line where the undefended model stands."""

    def around(axis: Any, points: Sequence[Point]) -> None:
        for one, _, capability in points:
            if one.defence == BASE:
                axis.axhline(capability.figure.value, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
        axis.set_xlabel("Youden's J, unseen styles (high is good)")
        axis.set_ylabel("capability (high is good)")
        axis.margins(0.12)

    return _scatter("ability", "Capability against Youden's J", 5.2, _points(means, *ABILITY), around)


def _dot(axis: Any, place: int, one: DefenceMeans, stem: str) -> None:
    mean = one.mean(stem)
    if mean is None or not mean.scored:
        axis.text(0.01, place, "-", color=SOFT, ha="left", va="center", transform=axis.get_yaxis_transform())
        return
    marker, colour = _look(one)
    axis.errorbar(
        mean.figure.value, place, xerr=errors([mean.figure]), fmt=marker, markersize=6, color=colour, elinewidth=1.4,
        zorder=3,
    )  # fmt: skip
    if mean.seeds > 1:
        seeds = [figure.value for row in one.runs if (figure := row.figure(stem)) is not None]
        seeds = [value for value in seeds if not math.isnan(value)]
        axis.plot(seeds, [place + 0.26] * len(seeds), "|", color=INK, markersize=6, zorder=3)


def _scatter(
    name: str,
    what: str,
    height: float,
    points: Sequence[Point],
    around: Callable[[Any, Sequence[Point]], None],
    extra: Sequence[tuple[tuple[float, float], str]] = (),
) -> Plot | None:
    """Markers with faint intervals and a name each, names moved apart; None without a point."""
    if not points:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(height)
        around(axis, points)
        for one, x, y in points:
            marker, colour = _look(one)
            axis.errorbar(
                x.figure.value, y.figure.value, xerr=errors([x.figure]), yerr=errors([y.figure]), fmt=marker,
                markersize=7, color=colour, ecolor=LINE, elinewidth=0.9, zorder=4,
            )  # fmt: skip
        labels = [f"{one.label} (undefended)" if one.defence == BASE else one.label for one, _, _ in points]
        places = [(x.figure.value, y.figure.value) for _, x, y in points]
        canvas.draw_without_rendering()  # settles the layout: only then can places be told
        name_points(axis, [*zip(places, labels, strict=True), *extra], SOFT)
        return canvas

    told = "; ".join(f"{one.label} {x.figure.value:.2f}, {y.figure.value:.2f}" for one, x, y in points)
    return Plot(name, f"{what}, a point a defence (across, up): {told}.", draw)


def _points(means: Sequence[DefenceMeans], x: str, y: str) -> list[Point]:
    pairs = [(one, one.mean(x), one.mean(y)) for one in means]
    return [(one, a, b) for one, a, b in pairs if a is not None and b is not None and a.scored and b.scored]


def not_drawn(means: Sequence[DefenceMeans], x: str, y: str) -> list[str]:
    """The defences that a plot of two figures has to leave out."""
    drawn = [one.label for one, _, _ in _points(means, x, y)]
    return [one.label for one in means if one.label not in drawn]


def _look(one: DefenceMeans) -> tuple[str, str]:
    """Marker and colour: the undefended model differs in both."""
    return ("D", SOFT) if one.defence == BASE else ("o", ONE)


def name_points(axis: Any, named: Sequence[tuple[tuple[float, float], str]], colour: str, size: float = 8.5) -> None:
    """A name beside each point: the first place that no marker and no earlier name has; else the least crowded."""
    unit = axis.figure.dpi / 72
    places = [tuple(axis.transData.transform(point) / unit) for point, _ in named]
    frame = axis.get_window_extent()
    inside = (frame.x0 / unit, frame.y0 / unit, frame.x1 / unit, frame.y1 / unit)
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for (point, text), (x, y) in zip(named, places, strict=True):
        width, height = 0.62 * size * len(text), 1.3 * size
        steps = [(radius * math.cos(turn), radius * math.sin(turn)) for radius in _RADII for turn in _TURNS]
        lefts = [x + dx - (width if dx < -1 else 0 if dx > 1 else width / 2) for dx, _ in steps]
        boxes = [
            (left, y + dy - height / 2, left + width, y + dy + height / 2)
            for left, (_, dy) in zip(lefts, steps, strict=True)
        ]
        box = min(boxes, key=lambda one: _crowding(one, taken, inside))
        taken.append(box)
        far = math.dist((x, y), (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))) > 12
        axis.annotate(
            text, point, ((box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y), textcoords="offset points",
            fontsize=size, ha="center", va="center", zorder=5,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6} if far else None,
        )  # fmt: skip


def _crowding(box: Box, taken: Sequence[Box], inside: Box) -> float:
    """Area that a box shares with others, and what sticks out of the frame, counted tenfold."""
    x0, y0, x1, y1 = box
    shared = sum(max(0.0, min(x1, b[2]) - max(x0, b[0])) * max(0.0, min(y1, b[3]) - max(y0, b[1])) for b in taken)
    out = max(0.0, inside[0] - x0) + max(0.0, x1 - inside[2]) + max(0.0, inside[1] - y0) + max(0.0, y1 - inside[3])
    return shared + 10 * out
