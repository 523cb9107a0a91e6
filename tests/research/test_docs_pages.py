"""Pages and tables that are written from the code are those of the code; after a change, `make docs` writes them."""

from __future__ import annotations

from pathlib import Path

from forethought.attacks.catalogue import all_attacks, suite_names
from forethought.attacks.searches.base import all_searches
from forethought.defences.catalogue import all_defences
from forethought.research.docs import attacks_page, defences_page, with_table, write_docs
from forethought.training.methods.catalogue import all_methods

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("attacks.md", "defences.md", "judges.md", "operators.md", "policy.md")


def test_the_pages_are_the_codes_own(tmp_path: Path) -> None:
    for name in PAGES:
        (tmp_path / name).write_text((DOCS / name).read_text(encoding="utf-8"), encoding="utf-8")
    write_docs(tmp_path)
    assert [name for name in PAGES if (tmp_path / name).read_text() != (DOCS / name).read_text()] == []


def test_a_table_is_put_in_place_of_the_one_with_its_heading() -> None:
    table = "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert (
        with_table("# A\n\n| a | b |\n| --- | --- |\n| 0 | 0 |\n| 9 | 9 |\n\nEnd.\n", table)
        == f"# A\n\n{table}\nEnd.\n"
    )


def test_the_page_of_attacks_names_every_attack_search_and_suite_once() -> None:
    page = attacks_page()
    for name in all_attacks():
        assert page.count(f"\n| `{name}`") == 1
    for name in {*all_searches(), *suite_names()}:
        assert page.count(f"\n| `{name}` |") == (name in all_searches()) + (name in suite_names())


def test_the_page_of_defences_names_every_defence_and_method_once() -> None:
    page = defences_page()
    titles = {one.id: one.title for one in all_defences().values()}
    for name, title in (titles | {one.name: one.title for one in all_methods().values()}).items():
        assert page.count(f"\n| `{name}` | {title} |") == 1
