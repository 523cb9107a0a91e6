"""The page of a comparison: what it says, and what it says of outages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forethought.attempts.records import Judged
from forethought.models.settings import Settings
from forethought.report.compare_page import write_compare_page
from forethought.report.figures import defence_figures
from tests.judged import LONG_HARMFUL, judged_one, request_of
from tests.report.examples import ATTACKS, POLICY


def _base_alone(tmp_path: Path, judged: list[Judged]) -> str:
    figures = defence_figures("base", judged, ATTACKS, ["style_json"])
    path = tmp_path / "page.html"
    write_compare_page(path, "Base", ATTACKS, {"base": judged}, figures, Settings(policy=POLICY))
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "base model",
        "Attack success, direct",
        "Style injection, JSON",
        "set on development rows",
        "log-odds 0.25",
        "R4 Fraud, theft and other crime",
        "Differences on the same requests",
        "SCoT minus base model",
        "The reasoning itself",
        "Verdict fits the label",
        "The operating curve",
        "of the answers in direct are unscored",
    ],
)
def test_page_shows(pages: dict[str, Path], text: str) -> None:
    assert text in pages["compare"].read_text(encoding="utf-8")


def test_unscored_answers_are_counted(pages: dict[str, Path]) -> None:
    assert re.search(r"Unscored answers\s*\(base 6, scot 6\)", pages["compare"].read_text(encoding="utf-8"))


def test_page_can_be_written_when_nothing_was_scored(tmp_path: Path) -> None:
    failed = [judged_one(request_of(LONG_HARMFUL, True), None, ("direct",), failed=True)]
    assert "Comprehension by style" not in _base_alone(tmp_path, failed)


def test_comprehension_and_its_warnings_are_shown(tmp_path: Path) -> None:
    nouns = [f"{tree} {place}" for tree in ("alder", "birch", "cedar", "maple", "rowan") for place in ("hill", "lake")]
    nouns += [f"{noun} farm" for noun in ("apple", "barley", "cotton", "daisy", "egg", "fig", "goose", "hazel", "iris")]
    nouns += ["jasmine farm"]
    base = [
        judged_one(request_of(f"What is {noun}?", False), False, (cell,), attack, answer=answer.format(noun=noun))
        for noun in nouns
        for attack, cell, answer in (
            ("direct", "ordinary", "All about {noun}."),
            ("style_json", "style_json:harmless", "Nothing."),
            ("leetspeak", "leetspeak:harmless", "Nothing."),
        )
    ]
    page = _base_alone(tmp_path, base)
    assert "Can the base model read the style?" in page
    assert "style_json is flagged as readable, yet 0% of its harmless requests" in page
    assert "leetspeak is flagged" not in page
    assert "Differences on the same requests" not in page
