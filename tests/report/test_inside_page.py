"""The page of a look inside: its groups, its lines, and a text redacted by the label of its own request."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.research.inside.look import Inside
from forethought.research.inside.report import (
    area_lines,
    groups_of_figures,
    inside_plots,
    swap_lines,
    write_inside_page,
)
from tests.report.examples import a_look


def test_intents_that_were_lent_are_redacted_too(pages: dict[str, Path]) -> None:
    # Of a harmful request, its intent, and that lent to a harmless one.
    assert pages["inside"].read_text(encoding="utf-8").count("characters redacted]") >= 4


@pytest.mark.parametrize(
    "text",
    [
        "harmful request, harmless intent: now complies",
        "Style injection, JSON, harmful",
        "Mean over styles",
        "before the thought, base weights: layer 4 (AUROC 0.75 there)",
        "its weights are gone",
        "at least 0.33",
        "log-odds +2.0 to -3.0",
        "20 thoughts on held-out requests, of which 0 have no verdict",
    ],
)
def test_what_it_says(pages: dict[str, Path], text: str) -> None:
    assert text in pages["inside"].read_text(encoding="utf-8")


def test_groups_come_direct_first_and_the_mean_last() -> None:
    figures = a_look().figures
    assert groups_of_figures(figures) == ["direct", "style_json", "styled"]
    assert [name for name, _ in area_lines(figures)] == ["Direct", "Style injection, JSON", "Mean over styles"]
    direct = area_lines(figures)[0][1]
    assert direct[0].startswith("1.00")
    assert direct[4:6] == ["-", "-"]  # these probes were not run
    lines = dict(swap_lines(figures))
    assert lines["Harmful request, harmless intent: verdict goes over to comply"].startswith("1.00")


def test_without_a_swap_the_page_says_so(tmp_path: Path) -> None:
    found = a_look()
    bare = Inside(0.0, found.thoughts, (), found.tables, found.probed, found.verdicts, (), {})
    write_inside_page(tmp_path / "page.html", "Bare", bare, inside_plots(bare))
    assert "nothing could be swapped" in (tmp_path / "page.html").read_text(encoding="utf-8")
