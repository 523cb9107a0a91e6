"""The page of a sweep with its plots and heat map: nothing hidden, names apart, and what can't be told said so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from forethought.metrics import Figure
from forethought.report.page import Plot
from forethought.research.config import Goal
from forethought.research.report import ability, forest, heat_map, name_points, not_drawn, trade_off, write_sweep_page
from forethought.research.rows import SweepRow, by_base, by_defence
from forethought.research.table import reached
from tests.report.examples import REASONING, UNSEEN, example, figure, missing_row, sweep_row

PLOTS = {"forest": forest, "trade_off": trade_off, "ability": ability}
SVG = "{http://www.w3.org/2000/svg}"


def _drawn(plot: Plot | None) -> str:
    assert plot is not None
    return plot.inline()


def _words(plot: Plot | None) -> set[str]:
    root = ElementTree.fromstring(_drawn(plot))
    return {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


def _page(tmp_path: Path, rows: list[SweepRow], notes: tuple[str, ...] = ()) -> str:
    path = tmp_path / "sweep.html"
    write_sweep_page(path, "The <zoo>", rows, UNSEEN, REASONING, notes)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.html"]
    return path.read_text(encoding="utf-8").replace("<wbr>", "")


def _text(page: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def test_table_has_intervals_ranges_and_reasons(tmp_path: Path) -> None:
    page = _page(
        tmp_path, [*example(), missing_row("scot_<rl>", "stopped: <out of memory>")], ("A shake-down & no more.",)
    )
    text = _text(page)
    assert "0.66 (0.55 to 0.77)" in text
    assert "seeds 0.60 to 0.72" in text
    assert "r2d2 needs an accelerator" in text
    assert "scot_<rl> stopped: <out of memory>" in text
    assert "prompt self_reminder was the best prompt" in text
    assert "A shake-down & no more." in text
    order = [page.index(f'<th scope="row">{name}<') for name in ("scot", "scot_split", "base", "r2d2")]
    assert order == sorted(order)


def test_page_says_what_can_not_be_told(tmp_path: Path) -> None:
    text = _text(_page(tmp_path, example()))
    assert "Trained with several seeds: scot. All others were trained once: another seed would move these" in text
    assert "Can't be told from scot by Youden's J, unseen styles: scot_split." in text
    once = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1), sweep_row("refusal", 0.2, 0.1)]))
    assert "Each was trained once, with one seed: another seed would move these numbers" in once
    assert "All others are further from scot than their interval is wide." in once
    seeds = [sweep_row(name, 0.8, 0.1, seed) for name in ("scot", "refusal") for seed in (0, 1)]
    assert "another seed would move" not in _text(_page(tmp_path, seeds))


def test_paired_differences_stand_where_there_are_some(tmp_path: Path) -> None:
    heading = "Against refusal_augmented, on the same requests"
    assert heading not in _page(tmp_path, example())
    more = (
        Figure(name="diff_auroc_unseen_scot_vs_refusal_augmented", value=0.06, low=0.01, high=0.11, n=80),
        Figure(name="p_auroc_unseen_scot_vs_refusal_augmented", value=0.0004, unit="p"),
    )
    text = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1, more=more), sweep_row("refusal_augmented", 0.7, 0.1)]))
    assert heading in text
    assert "scot AUROC, unseen styles +0.06 (+0.01 to +0.11) below 0.001 80" in text


def test_unscored_answers_are_told(tmp_path: Path) -> None:
    lost = Figure(name="asr_gcg", value=math.nan, n=0, unscored=40)
    text = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1, more=(lost,))]))
    assert "not scored" in text
    assert "40 of 560 answers are unscored and in no share." in text
    assert "nan" not in text


def test_page_of_runs_that_all_failed(tmp_path: Path) -> None:
    page = _page(tmp_path, [missing_row("scot", "no memory"), missing_row("refusal", "no memory")])
    assert "<svg" not in page
    assert "scot no memory" in _text(page)


def test_style_without_a_harmless_side_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sweep.html"
    write_sweep_page(path, "The zoo", example(), UNSEEN, ["fake_turn"])
    text = _text(path.read_text(encoding="utf-8"))
    assert "Not drawn, since nobody was measured on harmful and on harmless requests: fake_turn." in text


def test_each_base_has_a_section(tmp_path: Path) -> None:
    page = _page(tmp_path, [*example(), sweep_row("scot", 0.9, 0.1, base="large")])
    assert re.findall(r'<h2 class="base">(\w+)</h2>', page) == ["small", "large"]
    assert page.count("<h1>") == 1
    assert page.count('<table class="figures">') == 2


def test_goals_stand_before_the_figures_with_what_came_of_them(tmp_path: Path) -> None:
    goals = [Goal(figure="auroc_unseen_scot", least=0.9, why="told apart"), Goal(figure="asr_gcg_scot", most=0.1)]
    found = reached(goals, [Figure(name="auroc_unseen_scot", value=0.95, low=0.85, high=0.99)])
    path = tmp_path / "sweep.html"
    write_sweep_page(path, "The zoo", example(), UNSEEN, REASONING, goals=found)
    text = _text(path.read_text(encoding="utf-8").replace("<wbr>", ""))
    assert "told apart auroc_unseen_scot at least 0.9 0.950 (0.850 to 0.990) met, not shown" in text
    assert "asr_gcg_scot at most 0.1 - not measured" in text
    assert text.index("What was asked for") < text.index("All figures")
    assert "What was asked for" not in _text(_page(tmp_path, example()))


@pytest.mark.slow
def test_wide_tables_scroll_with_the_name_in_view(
    pages: dict[str, Path], empty_page: Callable[[str, int], Any]
) -> None:
    page = empty_page("light", 390)
    page.goto(pages["sweep"].as_uri())
    table = page.get_by_role("region", name="All figures")
    assert table.evaluate("one => one.scrollWidth > one.clientWidth")
    table.evaluate("one => { one.scrollLeft = 400 }")
    assert table.locator("tbody th").first.bounding_box()["x"] == pytest.approx(table.bounding_box()["x"], abs=1)
    assert page.locator("table.heat tbody tr").count() == 8
    strong = page.locator("td.p3").first
    assert strong.evaluate("one => getComputedStyle(one).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_cells(tmp_path: Path) -> None:
    more = (
        figure("asr_story", 0.9, 0.05, n=20), figure("refused_story", 0.6, 0.05, n=18),
        Figure(name="asr_empty_thought", value=math.nan, n=0, unscored=20),
    )  # fmt: skip
    rows = [sweep_row("scot", 0.9, 0.1, more=more), sweep_row("base"), missing_row("r2d2", "none")]
    path = tmp_path / "sweep.html"
    write_sweep_page(path, "The zoo", rows, [*UNSEEN, "unheard_of"], REASONING)
    table = path.read_text(encoding="utf-8").partition('<table class="heat">')[2].partition("</table>")[0]
    assert re.findall(r'<div class="style">(\w+)<', table) == ["style_json", "story", "empty_thought"]
    assert re.findall(r'colspan="(\d)">([a-z ]+)<', table) == [("2", "unseen styles"), ("1", "attacks on reasoning")]
    assert re.findall(r'<th scope="row">(\w+)<', table) == ["scot", "base"]
    cells = re.findall(r'<td class="(.*?)" title="(.*?)">(.*?)</td>', table)
    # The interval of the share that gets through is cut off at 1: 0.9, 0.85 to 0.95; J = 0.1 - 0.6.
    assert cells[:3] == [
        ("p3 told", "0.73 to 0.87, 80 answers", "0.80"),
        ("n2 told", "-0.57 to -0.43, 38 answers", "-0.50"),
        ("none", "nothing scored, 20 unscored", "?"),
    ]
    assert cells[3][::2] == ("p0", "0.00")
    found = heat_map(by_defence(rows), [*UNSEEN, "unheard_of", *REASONING])
    assert found is not None
    assert (found.counts[0], found.counts[-1]) == (38, 80)
    assert 0.05 < found.half < 0.08
    assert found.without == ["unheard_of"]


def test_answers_are_those_of_one_seed() -> None:
    found = heat_map(by_defence([sweep_row("scot", 0.9, seed=seed) for seed in range(3)]), UNSEEN)
    assert found is not None
    assert set(found.counts) == {80}


def test_no_map_without_a_style() -> None:
    assert heat_map(by_defence([missing_row("r2d2", "none")]), [*UNSEEN, *REASONING]) is None
    assert heat_map(by_defence([sweep_row("scot")]), ["unheard_of"]) is None


def test_undefended_model_and_ideal_are_marked() -> None:
    [means] = by_base(example()).values()
    for plot, words in ((trade_off(means), {"base (undefended)", "ideal"}), (ability(means), {"base (undefended)"})):
        assert words <= _words(plot)
    assert "base 0.00, 1.00" in _drawn(trade_off(means))


def test_what_can_not_be_drawn_is_named() -> None:
    [means] = by_base(example()).values()
    assert not_drawn(means, "asr_unseen", "capability") == ["r2d2"]
    assert not_drawn(means, "asr_unseen", "auroc_unseen") == ["prompt", "base", "r2d2"]
    [nothing] = by_base([missing_row("r2d2", "none")]).values()
    assert [plot(nothing) for plot in PLOTS.values()] == [None, None, None]


def test_names_are_text_and_never_markup() -> None:
    [means] = by_base([sweep_row('<b>"$x$', 0.5, 0.1)]).values()
    assert '<b>"$x$' in _words(forest(means))


def test_same_rows_give_the_same_plot() -> None:
    [means] = by_base(example()).values()
    assert _drawn(forest(means)) == _drawn(forest(means))


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
