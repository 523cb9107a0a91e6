"""The page in a real Chromium: it renders, its examples open, and it asks the network for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.engine.local import Settings
from forethought.policy import default_policy
from forethought.report.figures import defence_figures
from forethought.report.page import write_page
from tests.judged import comparison
from tests.report.browser import empty_page, needs_chromium


@pytest.mark.slow
@needs_chromium
def test_page_works_in_a_browser(tmp_path: Path) -> None:
    judged = comparison()
    attacks = ["style_json", "leetspeak"]
    figures = [f for name, rows in judged.items() for f in defence_figures(name, rows, attacks, ["style_json"])]
    path = tmp_path / "report.html"
    write_page(path, "My run", attacks, judged, figures, Settings(policy=default_policy()))
    with empty_page("light", 390) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert page.title() == "My run - Forethought"
        assert page.locator("#comparison tr").count() > 3
        assert page.locator("svg").count() >= 2
        example = page.locator("details").first
        example.locator("summary").click()
        assert example.locator(".side").first.is_visible()
        # On a narrow screen the page itself must not scroll sideways.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
        assert asked == [path.as_uri()]
