"""Pages that tests share: each is written once a test run, and one Chromium opens them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.examples import PAGES
from tests.tiny import made_once


def _written(name: str, show_harmful: bool) -> dict[str, Path]:
    """A page of every kind, each in a folder of its own."""

    def write(part: Path) -> None:
        for kind, page in PAGES.items():
            (part / kind).mkdir(parents=True)
            page(part / kind, show_harmful)

    folder = made_once(name, write)
    return {kind: folder / kind / "report.html" for kind in PAGES}


@pytest.fixture(scope="session")
def pages() -> dict[str, Path]:
    """A page of every kind, as it is without asking for harmful text."""
    return _written("pages", False)


@pytest.fixture(scope="session")
def open_files() -> dict[str, Path]:
    """The same with harmful text shown."""
    return _written("open-pages", True)


@pytest.fixture(scope="session")
def open_pages(open_files: dict[str, Path]) -> dict[str, str]:
    """Their text."""
    return {name: page.read_text("utf-8") for name, page in open_files.items()}


@pytest.fixture
def empty_page(chromium: Any) -> Iterator[Callable[[str, int], Any]]:
    """Gives a page of a colour scheme and a width in pixels, without JavaScript."""
    opened: list[Any] = []

    def give(scheme: str, width: int) -> Any:
        size = {"width": width, "height": 800}
        opened.append(chromium.new_page(viewport=size, color_scheme=scheme, java_script_enabled=False))
        return opened[-1]

    yield give
    for page in opened:
        page.close()
