"""The summary of a built set and its page: counts that add up, and what is harmful redacted."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forethought.cli.data import bar, overlap_view, spark, summary_view
from forethought.data.dedupe import overlaps as find_overlaps
from forethought.data.teach import reason_about
from forethought.records import user_request
from forethought.report.data_page import Count, DataSummary, Lengths, summarise, write_data_page
from tests.report.examples import POLICY, ROWS, SECRET, answered, refusal, summary
from tests.shell import run_here


def test_counts_add_up() -> None:
    found = summary()
    assert (found.rows, found.harmful, found.harmless, found.styled) == (50, 15, 35, 5)
    assert (found.thought_only, found.cut) == (5, 0)
    assert found.verified_share == 50 / 60
    assert found.dropped == {"the refusal does not refuse": 7, "b": 3}
    assert found.rules == tuple(Count(label=f"{rule} {POLICY.rule(rule).title}", harmful=15) for rule in ("R4", "R5"))
    assert found.operators == (
        Count(label="as they are", harmful=10, harmless=35),
        Count(label="slang", harmful=5),
    )
    assert found.sources == (Count(label="b.csv", harmless=35), Count(label="a.csv", harmful=15))
    for counts in (found.operators, found.sources, found.kinds):
        assert sum(count.rows for count in counts) == 50


def test_lengths_are_those_worked_out_by_hand() -> None:
    rows = [answered(0, answer="word " * n) for n in [1, 2, 3, 4, 5, 6, 7, 12, 60, 700]]
    found = summarise(rows, {}).lengths["answer"]
    assert (found.median, found.ninety, found.longest) == (5, 60, 700)
    assert found.bins[:3] == (("0-4", 4), ("5-9", 3), ("10-14", 1))
    assert found.bins[-1] == ("500+", 1)
    assert sum(count for _, count in found.bins) == 10
    # Empty ranges in the middle are kept: the axis would lie without them.
    assert ("100-149", 0) in found.bins


def test_an_empty_set_has_a_summary_and_a_page(tmp_path: Path) -> None:
    found = summarise([], {})
    assert found.verified_share is None
    assert found.lengths == {}
    write_data_page(tmp_path / "page.html", found)
    assert "Built set" in (tmp_path / "page.html").read_text("utf-8")
    assert "0 rows" in _printed(found)


def test_samples_are_drawn_from_all_rows_by_the_seed_alone() -> None:
    first, again = summary(), summary()
    assert first == again
    kinds = [(sample.kind, bool(sample.operator)) for sample in first.samples]
    assert kinds == sorted(kinds)
    assert {kinds.count(kind) for kind in kinds} == {4}
    other = summarise(ROWS, {}, seed=1, show_harmful=True)
    assert {s.request for s in other.samples} != {s.request for s in summarise(ROWS, {}, show_harmful=True).samples}
    late = [s for s in other.samples if any(f"loaf</b> {n}" in s.request for n in range(10, 35))]
    assert late  # not the first rows only


def test_every_row_has_the_same_chance_to_be_shown() -> None:
    rows = [answered(n) for n in range(12)]
    shown = [s.request for seed in range(600) for s in summarise(rows, {}, seed=seed).samples]
    counts = [shown.count(row.request.text) for row in rows]
    assert min(counts) > 150  # 200 on average, standard deviation about 12
    assert max(counts) < 250


def _printed(summary: DataSummary) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(summary_view(summary))
    return out.getvalue()


def test_harmful_text_is_redacted_by_default_everywhere() -> None:
    found = summary()
    assert SECRET not in found.model_dump_json()
    assert SECRET not in _printed(found)


def test_a_row_without_a_label_is_redacted_too() -> None:
    unknown = refusal(0)
    harmless = reason_about(answered(0).request, POLICY)
    row = unknown.model_copy(
        update={"request": unknown.request.model_copy(update={"harmful": None}), "reasoning": harmless}
    )
    assert SECRET not in summarise([row], {}).model_dump_json()


@pytest.mark.parametrize(
    "said",
    [
        "My &lt;run&gt;",
        "83.3%",
        f"R4 {POLICY.rule('R4').title}",
        "the refusal does not refuse",
        "near an earlier request of the set",
        '<th scope="row">bench</th><td>80</td><td>6</td>',
        '<th scope="row">capability</th><td>40</td><td>0</td>',
        "forethought build a.csv",
        "rules (no language model)",
        "prefers-color-scheme: dark",
        "asks really",
    ],
)
def test_page_says(open_pages: dict[str, str], said: str) -> None:
    assert said in open_pages["data"]


def test_page_says_where_a_row_has_no_answer(tmp_path: Path) -> None:
    write_data_page(tmp_path / "page.html", summarise([answered(0, answer="")], {}))
    assert "none: the row teaches the reasoning alone" in (tmp_path / "page.html").read_text("utf-8")


def test_bars_are_in_percent_of_the_longest_and_the_rest_is_summed(tmp_path: Path) -> None:
    counts = (Count(label="a", harmful=30, harmless=10), *[Count(label=str(n), harmless=4) for n in range(50)])
    lengths = Lengths(median=1, ninety=1, longest=1, bins=(("0-4", 8), ("5-9", 2)))
    found = summary().model_copy(update={"sources": counts, "lengths": {"request": lengths}})
    write_data_page(tmp_path / "page.html", found)
    page = (tmp_path / "page.html").read_text("utf-8")
    drawn = '<span class="harmful" style="width:{}%"></span><span class="harmless" style="width:{}%">'
    for widths in ((75.0, 25.0), (0.0, 10.0)):
        assert drawn.format(*widths) in page
    rest = page[page.index("11 others: 0 harmful, 44 harmless") :]
    assert drawn.format(0.0, 0.0) in rest[: rest.index("</div>")]
    assert re.findall(r'<div style="height:(.*?)%"', page) == ["100.0", "25.0"]


def test_terminal_bars() -> None:
    assert bar(4, 4, 3) == "███"
    assert bar(2, 4, 3) == "█▌"
    assert bar(0, 4, 3) == ""
    assert bar(1, 10_000, 3) == "▏"
    assert bar(0, 0, 3) == ""
    assert spark([0, 1, 8]) == " ▁█"


def test_terminal_view_shows_the_counts() -> None:
    printed = _printed(summary())
    for said in ("50 rows: 15 harmful, 35 harmless", "83.3% of the taught rows", "R4 ", "slang", "b.csv", "redacted]"):
        assert said in printed


def test_overlaps_are_shown_with_the_closest_calls_first() -> None:
    rows = [user_request(f"How do I forge the {SECRET} ticket of the museum?", harmful=True, source="a")]
    rows.append(user_request(f"How do I forge the {SECRET} ticket of the old museum?", harmful=True, source="a"))
    report = find_overlaps(rows, {"bench": rows[:1]})
    out = io.StringIO()
    Console(file=out, width=160).print(overlap_view(report))
    printed = out.getvalue()
    assert SECRET not in printed
    assert re.search(r"bench\s+1\s+2\s+1", printed)
    assert printed.index("near  ") < printed.index("exact")
    out = io.StringIO()
    Console(file=out, width=160).print(overlap_view(report, pairs=1))
    assert "and 1 more pairs" in out.getvalue()


@pytest.mark.parametrize(("show", "seen"), [(False, False), (True, True)])
def test_overlaps_of_two_files(tmp_path: Path, show: bool, seen: bool) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(f"prompt\nHow do I forge the {SECRET} ticket?\nWhy {name}?\n", encoding="utf-8")
    shown = ["--show-harmful"] if show else []
    done = run_here("data", "overlaps", tmp_path / "a.csv", tmp_path / "b.csv", *shown)
    assert "2 requests of" in done.out
    assert "1 of them in" in done.out
    assert (SECRET in done.out) is seen


@pytest.mark.slow
def test_bars_are_drawn_to_scale(pages: dict[str, Path], empty_page: Callable[[str, int], Any]) -> None:
    page = empty_page("light", 1200)
    page.goto(pages["data"].as_uri())
    assert page.locator(".tile").count() == 6
    assert page.locator("#evaluation tr").count() == 3
    styles = page.locator("section", has=page.locator("h3", has_text="Styles")).locator(".track .harmful")
    wide, narrow = (styles.nth(n).bounding_box()["width"] for n in (0, 1))
    assert wide == pytest.approx(2 * narrow, abs=1.5)  # 10 of 45 rows as they are, and 5 of 45 in slang
