"""The page on benchmarks names every layout, and its own example is valid."""

from __future__ import annotations

from pathlib import Path

from forethought.data.benchmarks import layouts
from tests.data.benchmarks.rows import (
    KNOT,
    labels,
    read,
    write_csv,
)


def test_the_page_names_every_layout() -> None:
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert [name for name in layouts() if f"`{name}`" not in page] == []
    assert all(layout.paper.startswith("arXiv ") for layout in layouts().values())


def test_the_layout_of_the_page_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
    own = tmp_path / "mine.yaml"
    own.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    row = {"case": "7", "round": 2, "ask": KNOT, "document": "Rope", "area": "a", "topic": "", "squad": "red"}
    rows = [row | {"expected": "Sure", "verdict": "bad"}, row | {"round": 3, "expected": "", "verdict": "who knows"}]
    found = read(write_csv(tmp_path / "rows.csv", rows), layout=str(own))
    assert [one.id for one in found.behaviors] == ["7/2", "7/3"]
    assert labels(found) == [True, None]
    assert found.behaviors[0].request.text == f"Rope\n\n---\n\n{KNOT}"
    assert found.behaviors[0].request.family == "mine:7"
    assert found.behaviors[1].reference is None
