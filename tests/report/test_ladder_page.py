"""A ladder's table, plot and page: gains with their signs, and what is missing."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from forethought.metrics import Figure
from forethought.report.tables import gain, sign_of
from forethought.research.ladder import PLOT, WIDE, gains, ladder_table, write_ladder_page
from tests.report.examples import STEPS, difference

SVG = "{http://www.w3.org/2000/svg}"


def test_a_gain_has_a_sign_only_where_its_interval_leaves_nothing_out() -> None:
    assert [sign_of(difference(value)) for value in (0.06, -0.06, 0.04, -0.04)] == [1, -1, 0, 0]
    assert sign_of(difference(0.5, half=None)) == 0
    assert sign_of(Figure(value=float("nan"), low=0.1, high=0.2)) == 0
    assert gain(difference(-0.06)) == "-0.06 (-0.11 to -0.01)"
    assert gain(difference(0.5, half=None)) == "+0.50"
    assert gain(None) == gain(Figure(value=float("nan"))) == "-"


@pytest.mark.parametrize("width", [72, WIDE])
def test_the_table_fits_and_tells_what_is_missing(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(ladder_table(STEPS, "plain", width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("worse_<b>loaf") and "-0.10 (-0.15 to -0.05)" in line for line in lines)
    assert any("Missing (not run yet): never_run." in line for line in lines)
    assert ("why of better" in out.getvalue()) == (width == WIDE)


def test_the_plot_by_itself_is_on_white_and_tells_its_numbers() -> None:
    plot = gains(STEPS, "plain")
    assert plot is not None
    drawn = plot.alone()
    root = ElementTree.fromstring(drawn)
    assert "further +0.12 (+0.07 to +0.17)" in (root.get("aria-label") or "")
    assert "#ffffff" in drawn
    assert "var(" not in drawn
    assert not list(root.iter(f"{SVG}text")), "a file of its own can't count on fonts"
    assert gains(STEPS[:1], "plain") is None


def test_page_holds_every_step_and_removes_a_plot_that_is_no_more(tmp_path: Path) -> None:
    page = write_ladder_page(tmp_path, "Steps", STEPS, "plain", [("ladder-data", "ladder-data/report.html")])
    text = page.read_text(encoding="utf-8")
    assert "worse_<wbr>&lt;b&gt;loaf" in text
    assert "<b>&gt;" not in text
    assert "after better" in text
    assert '<td class="told">+0.12 (+0.07 to +0.17)</td>' in text
    assert "<td>+0.02 (-0.03 to +0.07)</td>" in text
    assert 'href="ladder-data/report.html"' in text
    assert "not run yet" in text
    assert (tmp_path / PLOT).is_file()
    write_ladder_page(tmp_path, "Steps", STEPS[:1], "plain", [])
    assert not (tmp_path / PLOT).exists()
