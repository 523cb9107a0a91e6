"""The plots of an evaluation's page: marks and names apart, the front, and nothing that markup could break."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from forethought.report.decision import System
from forethought.report.page import Plot
from forethought.report.plots import ability, forest, name_points, pareto, points_of, trade_off
from forethought.research.report import sweep_page
from forethought.research.rows import SweepRow
from tests.report.examples import REASONING, UNSEEN, example, missing_row, sweep_row

SVG = "{http://www.w3.org/2000/svg}"


def _systems(rows: list[SweepRow]) -> list[System]:
    [part] = sweep_page(rows, {"unseen": UNSEEN, "reasoning": REASONING})
    return list(part.systems)


def _drawn(plot: Plot | None) -> str:
    assert plot is not None
    return plot.inline()


def _words(plot: Plot | None) -> set[str]:
    root = ElementTree.fromstring(_drawn(plot))
    return {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


def test_undefended_model_and_ideal_are_marked() -> None:
    systems = _systems(example())
    drawn = trade_off("t", systems, ["refused_lookalike", "refused_ordinary", "never_measured"])
    assert {"base (undefended)", "ideal"} <= _words(drawn)
    assert {"base (undefended)"} <= _words(ability("a", systems))
    assert _drawn(drawn).count("base 0.00, 1.00") == 2


def test_front_holds_what_no_other_is_better_than() -> None:
    points = points_of(_systems(example()), "refused_lookalike", "asr_unseen")
    assert [one.label for one, _, _ in pareto(points)] == ["base", "scot"]


def test_nothing_is_drawn_where_nothing_was_run() -> None:
    nothing = _systems([missing_row("r2d2", "none")])
    assert [forest("f", nothing), trade_off("t", nothing, ["refused_ordinary"]), ability("a", nothing)] == [None] * 3


def test_names_are_text_and_never_markup() -> None:
    systems = _systems([sweep_row('<b>"$x$', 0.5, 0.1), sweep_row("scot")])
    assert '<b>"$x$' in _words(forest("f", systems))


def test_names_do_not_lie_on_each_other() -> None:
    canvas = Canvas(figsize=(10, 6))
    axis: Any = canvas.subplots()
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    points = [((0.5 + 0.01 * (n % 4), 0.5 + 0.012 * (n // 4)), f"scot_variant_{n}") for n in range(12)]
    canvas.draw_without_rendering()
    name_points(axis, [*points, ((1.0, 1.0), "corner")], "black")
    canvas.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # without the lines that lead to the points
    shared = [(a, b) for place, a in enumerate(boxes) for b in boxes[:place] if a.overlaps(b)]
    assert shared == []
    frame = axis.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and box.y1 <= frame.y1 + 1 for box in boxes)
