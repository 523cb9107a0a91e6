"""A ladder's table, plot and page: gains with their signs, what is missing, and a page that fits a narrow window."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from forethought.evals.metrics import Figure
from forethought.report.ladder_page import PLOT, WIDE, Rung, gains, ladder_table, write_ladder_page
from forethought.report.sweep_figures import gain, sign_of
from forethought.report.theme import alone
from tests.report.browser import empty_page, needs_chromium

SVG = "{http://www.w3.org/2000/svg}"


def _difference(value: float, half: float | None = 0.05) -> Figure:
    if half is None:
        return Figure(value=value, unit="difference")
    return Figure(value=value, low=value - half, high=value + half, n=40, unit="difference")


def _rung(defence: str, value: float, part: str = "ladder-data", before: str = "", since: float = 0.0) -> Rung:
    area = Figure(name="auroc_unseen", value=0.8 + value, low=0.7, high=0.9, n=80, unit="auroc")
    both = {name: _difference(value) for name in ("auroc_unseen", "youden_unseen")}
    gained = {"auroc_unseen": _difference(since)} if before else {}
    return Rung(
        defence=defence, part=part, why=f"why of {defence}", before=before, figures={"auroc_unseen": area},
        against=both if defence != "plain" else {}, gained=gained,
    )  # fmt: skip


RUNGS = (
    _rung("plain", 0.0, "ladder-plain"),
    _rung("better", 0.1),
    _rung("worse_<b>", -0.1),
    _rung("further", 0.12, before="better", since=0.02),
    Rung(defence="never_run", part="ladder-data", missing="not run yet"),
)


def test_a_gain_has_a_sign_only_where_its_interval_leaves_nothing_out() -> None:
    assert [sign_of(_difference(value)) for value in (0.06, -0.06, 0.04, -0.04)] == [1, -1, 0, 0]
    assert sign_of(_difference(0.5, half=None)) == 0
    assert sign_of(Figure(value=float("nan"), low=0.1, high=0.2)) == 0
    assert gain(_difference(-0.06)) == "-0.06 (-0.11 to -0.01)"
    assert gain(_difference(0.5, half=None)) == "+0.50"
    assert gain(None) == gain(Figure(value=float("nan"))) == "-"


@pytest.mark.parametrize("width", [72, WIDE])
def test_the_table_fits_and_tells_what_is_missing(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(ladder_table(RUNGS, "plain", width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("worse_<b>") and "-0.10 (-0.15 to -0.05)" in line for line in lines)
    assert any("Missing (not run yet): never_run." in line for line in lines)
    assert ("why of better" in out.getvalue()) == (width == WIDE)


def test_the_plot_by_itself_is_on_white_and_tells_its_numbers() -> None:
    plot = gains(RUNGS, "plain")
    assert plot is not None
    drawn = alone(*plot, salt="ladder")
    root = ElementTree.fromstring(drawn)
    assert "further +0.12 (+0.07 to +0.17)" in (root.get("aria-label") or "")
    assert "#ffffff" in drawn
    assert "var(" not in drawn
    assert not list(root.iter(f"{SVG}text")), "a file of its own can't count on fonts"
    assert gains(RUNGS[:1], "plain") is None


def test_page_holds_every_rung_and_removes_a_plot_that_is_no_more(tmp_path: Path) -> None:
    page = write_ladder_page(tmp_path, "Rungs", RUNGS, "plain", [("ladder-data", "ladder-data/report.html")])
    text = page.read_text(encoding="utf-8")
    assert "worse_<wbr>&lt;b&gt;" in text
    assert "<b>&gt;" not in text
    assert "after better" in text
    assert '<td class="told">+0.12 (+0.07 to +0.17)</td>' in text
    assert "<td>+0.02 (-0.03 to +0.07)</td>" in text
    assert 'href="ladder-data/report.html"' in text
    assert "not run yet" in text
    assert (tmp_path / PLOT).is_file()
    write_ladder_page(tmp_path, "Rungs", RUNGS[:1], "plain", [])
    assert not (tmp_path / PLOT).exists()


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_page_works_in_a_browser(tmp_path: Path, scheme: str, width: int) -> None:
    path = write_ladder_page(tmp_path, "Rungs", RUNGS, "plain", [("ladder-data", "ladder-data/report.html")])
    with empty_page(scheme, width) as page:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
        assert page.get_by_role("img").get_attribute("aria-label").startswith("Gain of 3 rungs over plain")
        told = page.locator("tr", has_text="further").locator("td.told")
        assert told.first.inner_text() == "+0.12 (+0.07 to +0.17)"
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(14, 18, 23)"}[scheme]
