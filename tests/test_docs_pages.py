"""Pages that are written from the code name all that there is. `make lint` sees to it that they are the code's own, and
that the site is whole."""

from __future__ import annotations

from pathlib import Path

from forethought.attacks.catalogue import all_attacks, suite_names
from forethought.attacks.searches.base import all_searches
from forethought.defences.catalogue import all_defences
from forethought.training.methods.catalogue import all_methods

ROOT = Path(__file__).resolve().parents[1]


def _page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


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
