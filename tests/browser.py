"""What tests of pages in Chromium share."""

from __future__ import annotations

from importlib import resources
from typing import Any


def violations(page: Any) -> list[tuple[str, list[str]]]:
    """What axe-core finds on a page as it stands: the rule, and the elements that break it."""
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page.evaluate(axe)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]
