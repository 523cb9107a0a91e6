"""Plots of a sweep: defences by what they reach, and by what that costs, with their names beside the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from forethought.report.figures import BASE
from forethought.report.page import BEST, INK, LINE, ONE, SOFT, Plot, axes_of, errors
from forethought.report.tables import interval
from forethought.research.rows import RANKED_BY, DefenceMeans, Mean

Point = tuple[DefenceMeans, Mean, Mean]
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points of 1/72 inch."""
_RADII = (8, 16, 28, 44, 64, 90)
_TURNS = (0, 180, 90, 270, 45, 315, 135, 225)


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

    first, last = (f"{one.label} {_told(one, RANKED_BY)}" for one in (drawn[0], drawn[-1]))
    alt = f"Youden's J and AUROC of {len(drawn)} defences with intervals. At the top {first}, at the bottom {last}."
    return Plot("forest", alt, draw)


def trade_off(means: Sequence[DefenceMeans]) -> Plot | None:
    """Attack success against false refusals over unseen styles; lines of equal J, and the ideal corner."""
    points = _points(means, "refused_styled_harmless", "asr_unseen")
    if not points:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(6.4)
        for youden in (0.0, 0.25, 0.5, 0.75):
            axis.plot([0, 1 - youden], [1 - youden, 0], color=LINE, linewidth=1, zorder=1)
            axis.text(1 - youden, 0.0, f"J {youden:g} ", color=SOFT, fontsize=8, ha="right", va="bottom")
        axis.plot(0, 0, "*", color=BEST, markersize=15, clip_on=False, zorder=2)
        axis.set_xlim(-0.03, 1.03)
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("harmless requests refused, unseen styles (low is good)")
        axis.set_ylabel("attack success, unseen styles (low is good)")
        _scatter(canvas, axis, points, extra=[((0.0, 0.0), "ideal")])
        return canvas

    return Plot("trade-off", _scatter_alt("Attack success against harmless requests refused", points), draw)


def ability(means: Sequence[DefenceMeans]) -> Plot | None:
    """Capability against Youden's J; a dashed line where the undefended model stands."""
    points = _points(means, RANKED_BY, "capability")
    if not points:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(5.2)
        for one, _, capability in points:
            if one.defence == BASE:
                axis.axhline(capability.figure.value, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
        axis.set_xlabel("Youden's J, unseen styles (high is good)")
        axis.set_ylabel("capability (high is good)")
        axis.margins(0.12)
        _scatter(canvas, axis, points)
        return canvas

    return Plot("ability", _scatter_alt("Capability against Youden's J", points), draw)


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
    canvas: Any, axis: Any, points: Sequence[Point], extra: Sequence[tuple[tuple[float, float], str]] = ()
) -> None:
    """Markers with faint intervals and a name each, names moved apart."""
    for one, x, y in points:
        marker, colour = _look(one)
        axis.errorbar(
            x.figure.value, y.figure.value, xerr=errors([x.figure]), yerr=errors([y.figure]), fmt=marker, markersize=7,
            color=colour, ecolor=LINE, elinewidth=0.9, zorder=4,
        )  # fmt: skip
    named = [((x.figure.value, y.figure.value), _name(one)) for one, x, y in points]
    canvas.draw_without_rendering()  # settles the layout: only then can places be told
    name_points(axis, [*named, *extra], SOFT)


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


def _name(one: DefenceMeans) -> str:
    return f"{one.label} (undefended)" if one.defence == BASE else one.label


def _told(one: DefenceMeans, stem: str) -> str:
    mean = one.mean(stem)
    return interval(mean.figure) if mean is not None else "not measured"


def _scatter_alt(what: str, points: Sequence[Point]) -> str:
    places = "; ".join(f"{one.label} {x.figure.value:.2f}, {y.figure.value:.2f}" for one, x, y in points)
    return f"{what}, a point a defence (across, up): {places}."


def name_points(axis: Any, named: Sequence[tuple[tuple[float, float], str]], colour: str, size: float = 8.5) -> None:
    """A name beside each point: the first place that no marker and no earlier name has; else the least crowded."""
    unit = axis.figure.dpi / 72
    places = [tuple(axis.transData.transform(point) / unit) for point, _ in named]
    frame = axis.get_window_extent()
    inside = (frame.x0 / unit, frame.y0 / unit, frame.x1 / unit, frame.y1 / unit)
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for (point, text), (x, y) in zip(named, places, strict=True):
        width, height = 0.62 * size * len(text), 1.3 * size
        box = min(_candidates(x, y, width, height), key=lambda one: _crowding(one, taken, inside))
        taken.append(box)
        far = math.dist((x, y), (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))) > 12
        axis.annotate(
            text, point, ((box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y), textcoords="offset points",
            fontsize=size, ha="center", va="center", zorder=5,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6} if far else None,
        )  # fmt: skip


def _candidates(x: float, y: float, width: float, height: float) -> list[Box]:
    """Places around a point, the nearest first."""
    boxes = []
    for radius in _RADII:
        for turn in _TURNS:
            dx, dy = radius * math.cos(math.radians(turn)), radius * math.sin(math.radians(turn))
            left = x + dx - (width if dx < -1 else 0 if dx > 1 else width / 2)
            boxes.append((left, y + dy - height / 2, left + width, y + dy + height / 2))
    return boxes


def _crowding(box: Box, taken: Sequence[Box], inside: Box) -> float:
    """Area that a box shares with others, and what sticks out of the frame, counted tenfold."""
    x0, y0, x1, y1 = box
    shared = sum(max(0.0, min(x1, b[2]) - max(x0, b[0])) * max(0.0, min(y1, b[3]) - max(y0, b[1])) for b in taken)
    out = max(0.0, inside[0] - x0) + max(0.0, x1 - inside[2]) + max(0.0, inside[1] - y0) + max(0.0, y1 - inside[3])
    return shared + 10 * out
