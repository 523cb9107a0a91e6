"""The page of a sweep in a real Chromium, without JavaScript: it fits narrow windows and follows the theme."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.evals.metrics import Figure
from forethought.report.sweep_page import write_sweep_page
from tests.report.browser import empty_page, needs_chromium
from tests.report.sweep_example import REASONING, UNSEEN, example, sweep_row

STYLES = (*UNSEEN, *(f"another_unseen_style_{n}" for n in range(12)))
INK = {"light": "rgb(31, 35, 40)", "dark": "rgb(230, 237, 243)"}
ONE = {"light": "rgb(11, 92, 173)", "dark": "rgb(108, 176, 245)"}


def _written(path: Path) -> None:
    more = tuple(
        Figure(name=f"{stem}_{style}", value=0.3, low=0.2, high=0.4, n=20)
        for style in STYLES
        for stem in ("asr", "refused")
    )
    long = sweep_row("scot_with_a_name_that_goes_on_and_on_and_on_without_end", 0.5, 0.1, more=more)
    write_sweep_page(path, "The zoo", [*example(), long], STYLES, REASONING, ("unbroken_" * 12,))


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390), ("light", 320)])
def test_page_works_in_a_browser(tmp_path: Path, scheme: str, width: int) -> None:
    path = tmp_path / "sweep.html"
    _written(path)
    with empty_page(scheme, width) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert page.title() == "The zoo - Forethought"
        # The page itself never scrolls sideways; what is wide scrolls in its own frame, by keyboard too.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
        frames = page.locator(".wide")
        assert frames.count() == 7
        assert all(frames.nth(n).get_attribute("tabindex") == "0" for n in range(7))
        table = page.get_by_role("region", name="All figures")
        assert table.evaluate("one => one.scrollWidth > one.clientWidth")
        # While it scrolls, the name of the defence stays in view.
        table.evaluate("one => { one.scrollLeft = 400 }")
        name = table.locator("tbody th").first.bounding_box()
        assert name is not None
        assert name["x"] == pytest.approx(table.bounding_box()["x"], abs=1)
        plots = page.get_by_role("img")
        assert plots.count() == 3
        assert plots.nth(0).get_attribute("aria-label").startswith("Youden's J and AUROC of 8 defences")
        for text in (page.locator("h1"), page.locator("svg text", has_text="scot_split").first):
            place = "fill" if text.evaluate("one => one.tagName") == "text" else "color"
            assert text.evaluate(f"one => getComputedStyle(one).{place}") == INK[scheme]
        marks = plots.nth(0).evaluate(
            "svg => [...new Set([...svg.querySelectorAll('use')].map(one => getComputedStyle(one).fill))]"
        )
        assert ONE[scheme] in marks
        heat = page.locator("table.heat")
        assert heat.locator("tbody tr").count() == 8
        assert (
            heat.locator("td.p2").first.evaluate("one => getComputedStyle(one).backgroundColor") != "rgba(0, 0, 0, 0)"
        )
        assert asked == [path.as_uri()]
