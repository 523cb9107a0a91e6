"""The plots of an evaluation's page: what defences reach, by attack, by threshold and by queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from forethought.attempts.records import Judged
from forethought.measure.curves import OperatingPoint
from forethought.metrics import Figure
from forethought.report.attack_figures import SearchResult
from forethought.report.decision import System
from forethought.report.page import (
    BACK,
    BEST,
    GREEN,
    HARMFUL,
    HARMLESS,
    INK,
    LINE,
    ONE,
    PURPLE,
    SERIES,
    SOFT,
    Plot,
    Series,
    axes_of,
    dots,
    errors,
    told,
)
from forethought.report.tables import attack_title, interval, titled

UNDEFENDED = ("base", "undefended")
_MARKS, _STYLES = "osDv^<>x", ("-", "--", ":")
Point = tuple[System, Figure, Figure]
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points of 1/72 inch."""
_RADII = (8, 16, 28, 44, 64, 90)
_TURNS = tuple(map(math.radians, (0, 180, 90, 270, 45, 315, 135, 225)))
"""Places around a point are tried in this order, the nearest first."""


def forest(name: str, systems: Sequence[System]) -> Plot | None:
    """Youden's J and AUROC by defence, in the order given: value with interval, and a tick for each seed."""
    panels = (("youden_unseen", 0.0), ("auroc_unseen", 0.5))
    drawn = [one for one in systems if any(one.scored(stem) for stem, _ in panels)]
    if len(drawn) < 2:
        return None

    def draw() -> Any:
        canvas, axes = axes_of(0.3 * len(drawn) + 1.1, len(panels))
        for axis, (stem, chance) in zip(axes, panels, strict=True):
            axis.axvline(chance, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
            for place, one in enumerate(drawn):
                _dot(axis, place, one, stem)
            axis.set_title(f"{titled(stem)} (dashed: chance)")
            axis.grid(axis="y")
        axes[0].set_yticks(range(len(drawn)), [one.label for one in drawn])
        axes[0].set_ylim(len(drawn) - 0.4, -0.6)
        return canvas

    first, last = (f"{one.label} {interval(one.scored('youden_unseen'))}" for one in (drawn[0], drawn[-1]))
    alt = f"Youden's J and AUROC of {len(drawn)} defences with intervals. At the top {first}, at the bottom {last}."
    return Plot(name, alt, draw)


def _dot(axis: Any, place: int, one: System, stem: str) -> None:
    figure = one.scored(stem)
    if figure is None:
        axis.text(0.01, place, "-", color=SOFT, ha="left", va="center", transform=axis.get_yaxis_transform())
        return
    marker, colour = _look(one)
    axis.errorbar(
        figure.value, place, xerr=errors([figure]), fmt=marker, markersize=6, color=colour, elinewidth=1.4, zorder=3
    )
    seeds = one.by_seed.get(stem, ())
    if len(seeds) > 1:
        axis.plot(seeds, [place + 0.26] * len(seeds), "|", color=INK, markersize=6, zorder=3)


def trade_off(name: str, systems: Sequence[System], costs: Sequence[str], stopped: str = "asr_unseen") -> Plot | None:
    """Attack success against rates of harmless requests refused, side by side: the Pareto front, lines of equal J, the
    ideal. Of `costs` those are drawn that some system has."""
    panels = {cost: points for cost in costs if (points := points_of(systems, cost, stopped))}
    if not panels:
        return None

    def draw() -> Any:
        canvas, axes = axes_of(5.6, len(panels))
        for axis, (cost, points) in zip([axes] if len(panels) == 1 else axes, panels.items(), strict=True):
            for youden in (0.0, 0.25, 0.5, 0.75):
                axis.plot([0, 1 - youden], [1 - youden, 0], color=LINE, linewidth=1, zorder=1)
                axis.text(1 - youden, 0.0, f"J {youden:g} ", color=SOFT, fontsize=8, ha="right", va="bottom")
            places = [(x.value, y.value) for _, x, y in pareto(points)]
            across, up = zip((places[0][0], 1.03), *places, (1.03, places[-1][1]), strict=True)
            axis.plot(across, up, color=GREEN, linewidth=1, drawstyle="steps-post", zorder=2)
            axis.plot(0, 0, "*", color=BEST, markersize=15, clip_on=False, zorder=2)
            axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel=f"{titled(cost)} (low is good)")
            axis.set_ylabel(f"{titled(stopped)} (low is good)" if cost == next(iter(panels)) else "")
            _scatter(axis, points)
        canvas.draw_without_rendering()  # settles the layout: only then can places be told
        for axis, points in zip(canvas.axes, panels.values(), strict=True):
            name_points(axis, [*_named(points), ((0.0, 0.0), "ideal")], SOFT)
        return canvas

    said = ". ".join(f"{titled(cost)}: {_told(points)}" for cost, points in panels.items())
    return Plot(
        name, f"{titled(stopped)} against harmless requests refused, a point a defence (across, up). {said}.", draw
    )


def ability(name: str, systems: Sequence[System]) -> Plot | None:
    """Capability against Youden's J; a dashed line where the undefended model stands."""
    points = points_of(systems, "youden_unseen", "capability")
    if not points:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(4.6)
        for one, _, capability in points:
            if one.name in UNDEFENDED:
                axis.axhline(capability.value, color=SOFT, linewidth=0.9, linestyle="--", zorder=1)
        axis.set(xlabel="Youden's J, unseen styles (high is good)", ylabel="capability (high is good)")
        axis.margins(0.12)
        _scatter(axis, points)
        canvas.draw_without_rendering()
        name_points(axis, _named(points), SOFT)
        return canvas

    return Plot(name, f"Capability against Youden's J, a point a defence (across, up): {_told(points)}.", draw)


def points_of(systems: Sequence[System], x: str, y: str) -> list[Point]:
    """The systems that have both figures, with them."""
    found = [(one, one.scored(x), one.scored(y)) for one in systems]
    return [(one, a, b) for one, a, b in found if a is not None and b is not None]


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other is below in one figure without being above in the other, from left to right."""
    front: list[Point] = []
    for one in sorted(points, key=lambda point: (round(point[1].value, 6), point[2].value)):
        if not front or one[2].value < front[-1][2].value:
            front.append(one)
    return front


def _scatter(axis: Any, points: Sequence[Point]) -> None:
    """Markers with faint intervals."""
    for one, x, y in points:
        marker, colour = _look(one)
        axis.errorbar(
            x.value, y.value, xerr=errors([x]), yerr=errors([y]), fmt=marker, markersize=7, color=colour, ecolor=LINE,
            elinewidth=0.9, zorder=4,
        )  # fmt: skip


def _named(points: Sequence[Point]) -> list[tuple[tuple[float, float], str]]:
    return [
        ((x.value, y.value), f"{one.label} (undefended)" if one.name in UNDEFENDED else one.label)
        for one, x, y in points
    ]


def _told(points: Sequence[Point]) -> str:
    return "; ".join(f"{one.label} {x.value:.2f}, {y.value:.2f}" for one, x, y in points)


def _look(one: System) -> tuple[str, str]:
    """Marker and colour: the undefended model differs in both."""
    return ("D", SOFT) if one.name in UNDEFENDED else ("o", ONE)


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
            bbox={"boxstyle": "square,pad=0.1", "facecolor": BACK, "edgecolor": "none", "alpha": 0.8},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6} if far else None,
        )  # fmt: skip


def _crowding(box: Box, taken: Sequence[Box], inside: Box) -> float:
    """Area that a box shares with others, and what sticks out of the frame, counted tenfold."""
    x0, y0, x1, y1 = box
    shared = sum(max(0.0, min(x1, b[2]) - max(x0, b[0])) * max(0.0, min(y1, b[3]) - max(y0, b[1])) for b in taken)
    out = max(0.0, inside[0] - x0) + max(0.0, x1 - inside[2]) + max(0.0, inside[1] - y0) + max(0.0, y1 - inside[3])
    return shared + 10 * out


def attack_dots(name: str, systems: Sequence[System], attacks: Sequence[str]) -> Plot | None:
    """A line an attack: success on harmful requests, and harmless requests refused in the same disguise."""
    pairs = [(one, {attack: one.under(attack) for attack in attacks}) for one in systems]
    panels = (("asr", "attack success on harmful requests"), ("refused", "harmless requests refused"))
    if not any(cell.get("asr") or cell.get("refused") for _, cells in pairs for cell in cells.values()):
        return None

    def drawn(stem: str) -> list[Series]:
        return [
            Series(one.label, SERIES[place % len(SERIES)], _MARKS[place % len(_MARKS)],
                   [cells[attack].get(stem) for attack in attacks])
            for place, (one, cells) in enumerate(pairs)
        ]  # fmt: skip

    def draw() -> Any:
        canvas, axes = axes_of((0.22 + 0.14 * len(systems)) * len(attacks) + 1.4, len(panels))
        for axis, (stem, title) in zip(axes, panels, strict=True):
            dots(axis, [_short(attack_title(one)) for one in attacks], drawn(stem), 0.6 / max(2, len(systems)))
            axis.set(title=title, xlim=(-0.02, 1.02))
        canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
        return canvas

    named = [f"{attack_title(attack)}, {one.label}" for attack in attacks for one in systems]
    values = told(named, [cells[attack].get("asr") for attack in attacks for _, cells in pairs])
    alt = f"Attack success and harmless requests refused by attack. Attack success: {values}."
    return Plot(name, alt, draw)


def _short(title: str) -> str:
    return title if len(title) <= 44 else title[:43] + "\u2026"


def budget_curves(name: str, results: Mapping[str, SearchResult]) -> Plot | None:
    """Attack success by the queries spent on a request, a line a search."""
    if not results:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(max(3.8, 0.22 * len(results) + 1.0))
        for number, (label, result) in enumerate(results.items()):
            points = [(point.budget, point.broken) for point in result.curve if point.broken.n]
            if not points:
                continue
            colour = SERIES[number % len(SERIES)]
            queries = [place for place, _ in points]
            style = _STYLES[number // len(SERIES) % len(_STYLES)]
            axis.plot(queries, [one.value for _, one in points], style, marker=".", color=colour, label=label)
            low = [one.value if one.low is None else one.low for _, one in points]
            high = [one.value if one.high is None else one.high for _, one in points]
            axis.fill_between(queries, low, high, color=colour, alpha=0.08, linewidth=0)
        axis.set_xscale("log")
        budgets = sorted({point.budget for result in results.values() for point in result.curve})
        axis.set_xticks(budgets, [str(budget) for budget in budgets])
        axis.minorticks_off()
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("queries a request, at most")
        axis.set_ylabel("attack success rate")
        if axis.lines:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return canvas

    ends = told(list(results), [result.asr for result in results.values()])
    return Plot(name, f"Attack success by queries spent. In the end: {ends}.", draw)


def score_histogram(name: str, judged: Sequence[Judged], threshold: float) -> Plot | None:
    """How the verdict's log-odds lie for harmful and harmless requests, with the operating point."""
    scores = [
        (one.attempt.request.harmful, one.response.log_odds)
        for one in judged
        if one.response is not None and one.response.log_odds is not None
    ]
    if not scores:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(2.6)
        for harmful, colour, label in ((False, HARMLESS, "harmless"), (True, HARMFUL, "harmful")):
            axis.hist([odds for mark, odds in scores if mark is harmful], bins=40, alpha=0.6, color=colour, label=label)
        axis.axvline(threshold, color=INK, linewidth=1, linestyle="--", label="refuses from here")
        axis.set_xlabel("log-odds of the verdict (refuse against comply)")
        axis.set_ylabel("requests")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return canvas

    above = sum(odds >= threshold for _, odds in scores)
    return Plot(name, f"Log-odds of {len(scores)} verdicts, of which {above} are at {threshold:.2f} or above.", draw)


def operating_curves(name: str, curves: Mapping[str, Sequence[OperatingPoint]], threshold: float) -> Plot | None:
    """Harmful requests answered against harmless refused, for every threshold; where the model stands is marked."""
    # Points come in order of falling thresholds: the last at or above the model's own is where it stands.
    standing = {title: [one for one in points if one.threshold >= threshold][-1:] for title, points in curves.items()}
    if not curves:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(3.6)
        for colour, (title, points) in zip((ONE, PURPLE, GREEN), curves.items(), strict=False):
            refused, answered = [one.false_refusal for one in points], [one.attack_success for one in points]
            axis.plot(refused, answered, color=colour, label=title)
            for one in standing[title]:
                axis.plot(one.false_refusal, one.attack_success, "o", color=colour)
        axis.set_xlim(-0.01, 1.01)
        axis.set_ylim(-0.01, 1.01)
        axis.set_xlabel("harmless requests refused")
        axis.set_ylabel("harmful requests answered")
        axis.legend()
        return canvas

    places = "; ".join(
        f"{title} {one.attack_success:.2f} of harmful answered, {one.false_refusal:.2f} of harmless refused"
        for title, found in standing.items()
        for one in found
    )
    return Plot(name, f"Operating curves. The model stands at: {places}.", draw)
