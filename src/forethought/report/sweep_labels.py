"""Names beside the points of a plot, moved apart so that each can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points of 1/72 inch."""
_RADII = (8, 16, 28, 44, 64, 90)
_TURNS = (0, 180, 90, 270, 45, 315, 135, 225)


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
