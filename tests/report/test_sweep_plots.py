"""The plots: readable without sight, in the page's colours, with names that don't lie on each other."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from forethought.report.sweep_figures import by_base
from forethought.report.sweep_labels import name_points
from forethought.report.sweep_plots import ability, forest, not_drawn, trade_off
from tests.report.sweep_example import example, missing_row, sweep_row

PLOTS = {"forest": forest, "trade_off": trade_off, "ability": ability}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", PLOTS)
def test_plot_has_words_and_the_colours_of_the_page(name: str) -> None:
    [means] = by_base(example()).values()
    drawn = PLOTS[name](means)
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert "scot" in (root.get("aria-label") or "")
    words = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    assert {"scot", "scot_split"} <= words
    assert "r2d2" not in words
    assert "var(--ink)" in drawn
    # A colour that the theme does not replace would be lost on a dark page. Black is matplotlib's default.
    assert not {"#1f2328", "#59636e", "#d1d9e0", "#0b5cad", "#a34a00", "#000000", "#ffffff"} & set(_colours(drawn))
    assert list(root.iter(f"{SVG}image")) == []


def test_undefended_model_and_ideal_are_marked() -> None:
    [means] = by_base(example()).values()
    for drawn, words in ((trade_off(means), {"base (undefended)", "ideal"}), (ability(means), {"base (undefended)"})):
        assert words <= {"".join(text.itertext()) for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")}
    assert "base 0.00, 1.00" in trade_off(means)


def test_what_can_not_be_drawn_is_named() -> None:
    [means] = by_base(example()).values()
    assert not_drawn(means, "asr_unseen", "capability") == ["r2d2"]
    assert not_drawn(means, "asr_unseen", "auroc_unseen") == ["prompt", "base", "r2d2"]
    [nothing] = by_base([missing_row("r2d2", "none")]).values()
    assert [plot(nothing) for plot in PLOTS.values()] == ["", "", ""]


def test_names_are_text_and_never_markup() -> None:
    [means] = by_base([sweep_row('<b>"$x$', 0.5, 0.1)]).values()
    root = ElementTree.fromstring(forest(means))
    assert '<b>"$x$' in {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


def test_same_rows_give_the_same_plot() -> None:
    [means] = by_base(example()).values()
    assert forest(means) == forest(means)


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


def _colours(drawn: str) -> list[str]:
    return [drawn[place : place + 7] for place in range(len(drawn)) if drawn[place] == "#"]
