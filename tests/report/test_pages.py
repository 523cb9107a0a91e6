"""What holds for every page: one file, redacted unless asked, safe whatever a model has written, in every theme."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from forethought.report.page import DARK, LIGHT
from tests.report.examples import PAGES, SECRET
from tests.report.transcribed import held_in

SCRIPT = '<script src="report.attempts.js" defer></script>'
WITH_TEXTS = ("compare", "attack", "data", "inside")
"""Pages that show texts of requests."""
WITH_TRANSCRIPTS = ("compare", "attack")
"""Pages with every attempt, in a script beside them."""
FILES = {
    name: ["report.attempts.js", "report.html"] if name in WITH_TRANSCRIPTS else ["report.html"] for name in PAGES
} | {"ladder": ["gains.svg", "report.html"]}
MARKS = ("one", "best", "plain", "harmful", "harmless", "green", "purple", "amber", "teal", "pink")


@pytest.mark.parametrize("name", PAGES)
def test_it_is_one_file_that_loads_nothing_from_elsewhere(pages: dict[str, Path], name: str) -> None:
    page = pages[name].read_text(encoding="utf-8").replace(SCRIPT, "")
    assert sorted(file.name for file in pages[name].parent.iterdir()) == FILES[name]
    # References inside the page (#...) are its own; names of XML namespaces are never fetched.
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#)""", page) == []
    assert re.findall(r"url\((?!#)", page) == []
    for tag in ("<script", "<link", "<iframe", "<img", "<image", "@import"):
        assert tag not in page


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_harmful_text_is_redacted_unless_asked(
    pages: dict[str, Path], open_pages: dict[str, str], open_files: dict[str, Path], name: str
) -> None:
    page = pages[name].read_text(encoding="utf-8")
    held, open_held = page, open_pages[name]
    if name in WITH_TRANSCRIPTS:
        held, open_held = (str(held_in(one[name].with_suffix(".attempts.js"))) for one in (pages, open_files))
    assert SECRET not in page + held
    assert "z4nz1b4r" not in page + held  # nor in a disguise
    assert "characters redacted]" in held
    assert "Harmful text is redacted" in page
    assert SECRET in open_held
    assert "Harmful text is redacted" not in open_pages[name]


@pytest.mark.parametrize("name", PAGES)
def test_texts_and_names_are_escaped(open_pages: dict[str, str], name: str) -> None:
    page = open_pages[name].replace("<wbr>", "").replace(SCRIPT, "")
    if name not in WITH_TRANSCRIPTS:  # their texts stand in the script, and are set as texts
        assert "&lt;b&gt;loaf" in page
    assert "<b>loaf" not in page
    assert "<script" not in page
    assert "<h1>My &lt;run&gt;</h1>" in page


@pytest.mark.parametrize("name", sorted(set(PAGES) - {"data"}))
def test_plots_have_words_and_the_colours_of_the_page(pages: dict[str, Path], name: str) -> None:
    drawn = re.findall(r"<svg.*?</svg>", pages[name].read_text(encoding="utf-8"), re.DOTALL)
    assert len(drawn) == {"compare": 6, "attack": 4, "inside": 4, "sweep": 3, "ladder": 1}[name]
    for text in drawn:
        assert len(ElementTree.fromstring(text).get("aria-label") or "") > 20
        assert "var(--ink)" in text
        # A colour that the theme does not replace would be lost on a dark page. Black is matplotlib's default.
        assert set(re.findall(r"(?:fill|stroke): *(#\w{6})", text)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_works_in_a_browser(
    pages: dict[str, Path], empty_page: Callable[[str, int], Any], name: str, scheme: str, width: int
) -> None:
    page, asked = empty_page(scheme, width), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    assert asked == [pages[name].as_uri()]
    assert page.title() == "My <run> - Forethought"
    # The page itself never scrolls sideways; what is wide scrolls in its own frame, by keyboard too.
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    frames = page.locator(".wide")
    assert all(frames.nth(n).get_attribute("tabindex") == "0" for n in range(frames.count()))
    theme = {"light": LIGHT, "dark": DARK}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == _rgb(theme["back"])
    assert page.locator("h1").evaluate("one => getComputedStyle(one).color") == _rgb(theme["ink"])
    for words in page.locator("svg text").all()[:1]:
        assert words.evaluate("one => getComputedStyle(one).fill") == _rgb(theme["ink"])
    for row in page.locator("details").all()[:1]:
        row.locator("summary").click()
        assert row.locator(":scope > :not(summary)").first.is_visible()


def _rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[place : place + 2], 16) for place in (1, 3, 5)))


def _contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lights = sorted((luminance(first), luminance(second)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_read(theme: dict[str, str]) -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    texts = [
        ("soft", "back"), ("soft", "card"), ("strong", "harmful"), ("strong", "harmless"),
        *(("ink", ground) for ground in ("back", "card", "tag", "good", "bad", "warn")),
        *(("ink", f"{side}{level}") for side in "pn" for level in (1, 2)),
        *(("strong", f"{side}{level}") for side in "pn" for level in (3, 4)),
    ]  # fmt: skip
    assert {pair: ratio for pair in texts if (ratio := _contrast(*(theme[name] for name in pair))) < 4.2} == {}
    assert {name: ratio for name in MARKS if (ratio := _contrast(theme[name], theme["back"])) < 3} == {}


def test_no_two_colours_of_plots_are_the_same() -> None:
    """On a page a plot's colour becomes the variable of its name."""
    drawn = [LIGHT[name] for name in ("ink", "soft", "line", *MARKS)]
    assert len(set(drawn)) == len(drawn)
    assert set(LIGHT) == set(DARK)
