"""Pages that are written from the code are those of the code; after a change, `make docs` writes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forethought.attacks.catalogue import all_attacks, suite_names
from forethought.attacks.searches.base import all_searches
from forethought.defences.catalogue import all_defences
from forethought.training.methods.catalogue import all_methods

ROOT = Path(__file__).resolve().parents[1]


def _page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_pages_are_the_codes_own() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert [page for page in pages if not (tmp_path / "html" / page).is_file()] == []


def test_the_page_of_attacks_names_every_attack_search_and_suite_once() -> None:
    page = _page("attacks")
    for name in all_attacks():
        assert page.count(f"\n| `{name}`") == 1
    for name in {*all_searches(), *suite_names()}:
        assert page.count(f"\n| `{name}` |") == (name in all_searches()) + (name in suite_names())


def test_the_page_of_defences_names_every_defence_and_method_once() -> None:
    page = _page("defences")
    titles = {one.id: one.title for one in all_defences().values()}
    for name, title in (titles | {one.name: one.title for one in all_methods().values()}).items():
        assert page.count(f"\n| `{name}` | {title} |") == 1
