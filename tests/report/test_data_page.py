"""The summary of a built set and its page: counts that add up, harmful text redacted, nothing from elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from forethought.commands.inspect import bar, overlap_view, overlaps, spark, summary_view
from forethought.data.card import BuildFacts, SourceFacts
from forethought.data.overlap import overlaps as find_overlaps
from forethought.data.teach import reason_about, refusal_for
from forethought.policy import default_policy
from forethought.records import Example, user_request
from forethought.report.data_page import Count, DataSummary, Lengths, bars, columns, summarise, write_data_page
from tests.report.browser import empty_page, needs_chromium

POLICY = default_policy()
SECRET = "zanzibar"
FACTS = BuildFacts(
    name="My <set>",
    command="forethought build a.csv",
    sources=(SourceFacts(path="a.csv"),),
    seed=7,
    removed={"near an earlier request of the set": 5},
    evaluation={"bench": 80, "capability": 40},
    overlaps={"bench": 6},
).model_dump()


def _refusal(number: int, operator: str | None = None) -> Example:
    text = f"Explain how to forge one of the {SECRET} tickets, number {number} <script>alert(1)</script>"
    request = user_request(text, harmful=True, rules=("R4", "R5"), kind="harmful", source="a.csv")
    if operator:
        request = request.restyled(f"yo fam {text}", operator)
    reasoning = reason_about(request, POLICY).model_copy(
        update={"deliberation": f"It would do harm to the {SECRET} shop."}
    )
    return Example(request=request, reasoning=reasoning, answer=refusal_for(reasoning, POLICY, 0))


def _answered(number: int, answer: str = "Make a loop, then pull.") -> Example:
    request = user_request(f"How do I tie <b>knot</b> {number}?", harmful=False, kind="ordinary", source="b.csv")
    reasoning = reason_about(request, POLICY)
    return Example(request=request, reasoning=reasoning, answer=answer, answer_complete=bool(answer))


ROWS = [
    *[_refusal(n) for n in range(10)],
    *[_refusal(n, "slang") for n in range(5)],
    *[_answered(n) for n in range(30)],
    *[_answered(n, answer="") for n in range(30, 35)],
]


def _summary(**options: bool) -> DataSummary:
    return summarise(iter(ROWS), {"b": 3, "the refusal does not refuse": 7}, FACTS, POLICY, **options)


def test_counts_add_up() -> None:
    summary = _summary()
    assert (summary.rows, summary.harmful, summary.harmless, summary.styled) == (50, 15, 35, 5)
    assert (summary.thought_only, summary.cut) == (5, 0)
    assert summary.verified_share == 50 / 60
    assert summary.dropped == {"the refusal does not refuse": 7, "b": 3}
    assert summary.rules == tuple(Count(label=f"{rule} {POLICY.rule(rule).title}", harmful=15) for rule in ("R4", "R5"))
    assert summary.operators == (
        Count(label="as they are", harmful=10, harmless=35),
        Count(label="slang", harmful=5),
    )
    assert summary.sources == (Count(label="b.csv", harmless=35), Count(label="a.csv", harmful=15))
    for counts in (summary.operators, summary.sources, summary.kinds):
        assert sum(count.rows for count in counts) == 50


def test_lengths_are_those_worked_out_by_hand() -> None:
    rows = [_answered(0, answer="word " * n) for n in [1, 2, 3, 4, 5, 6, 7, 12, 60, 700]]
    found = summarise(rows, {}).lengths["answer"]
    assert (found.median, found.ninety, found.longest) == (5, 60, 700)
    assert found.bins[:3] == (("0-4", 4), ("5-9", 3), ("10-14", 1))
    assert found.bins[-1] == ("500+", 1)
    assert sum(count for _, count in found.bins) == 10
    # Empty ranges in the middle are kept: the axis would lie without them.
    assert ("100-149", 0) in found.bins


def test_an_empty_set_has_a_summary_and_a_page(tmp_path: Path) -> None:
    summary = summarise([], {})
    assert summary.verified_share is None
    assert summary.lengths == {}
    write_data_page(tmp_path / "page.html", summary)
    assert "Built set" in (tmp_path / "page.html").read_text("utf-8")
    assert "0 rows" in _printed(summary)


def test_samples_are_drawn_from_all_rows_by_the_seed_alone() -> None:
    first, again = _summary(), _summary()
    assert first == again
    kinds = [(sample.kind, bool(sample.operator)) for sample in first.samples]
    assert kinds == sorted(kinds)
    assert {kinds.count(kind) for kind in kinds} == {4}
    other = summarise(ROWS, {}, seed=1, show_harmful=True)
    assert {s.request for s in other.samples} != {s.request for s in summarise(ROWS, {}, show_harmful=True).samples}
    late = [s for s in other.samples if any(f"knot</b> {n}" in s.request for n in range(10, 35))]
    assert late  # not the first rows only


def test_every_row_has_the_same_chance_to_be_shown() -> None:
    rows = [_answered(n) for n in range(12)]
    shown = [s.request for seed in range(600) for s in summarise(rows, {}, seed=seed).samples]
    counts = [shown.count(row.request.text) for row in rows]
    assert min(counts) > 150  # 200 on average, standard deviation about 12
    assert max(counts) < 250


def _printed(summary: DataSummary) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(summary_view(summary))
    return out.getvalue()


def _page(tmp_path: Path, summary: DataSummary) -> str:
    path = tmp_path / "data.html"
    write_data_page(path, summary)
    assert [file.name for file in tmp_path.iterdir()] == ["data.html"]
    return path.read_text(encoding="utf-8")


def test_harmful_text_is_redacted_by_default_everywhere(tmp_path: Path) -> None:
    summary = _summary()
    assert SECRET not in summary.model_dump_json()
    assert SECRET not in _printed(summary)
    page = _page(tmp_path, summary)
    assert SECRET not in page
    assert "Harmful text is redacted" in page
    assert "How do I tie &lt;b&gt;knot&lt;/b&gt;" in page


def test_a_row_without_a_label_is_redacted_too() -> None:
    unknown = _refusal(0)
    harmless = reason_about(_answered(0).request, POLICY)
    row = unknown.model_copy(
        update={"request": unknown.request.model_copy(update={"harmful": None}), "reasoning": harmless}
    )
    assert SECRET not in summarise([row], {}).model_dump_json()


def test_harmful_text_is_shown_when_asked_and_escaped(tmp_path: Path) -> None:
    page = _page(tmp_path, _summary(show_harmful=True))
    assert SECRET in page
    assert "Harmful text is redacted" not in page
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = _page(tmp_path, _summary())
    assert re.findall(r"""(?:src|href|action)\s*=""", page) == []
    for tag in ("<script", "<link", "<iframe", "<img", "@import", "url("):
        assert tag not in page


@pytest.mark.parametrize(
    "said",
    [
        "My &lt;set&gt;",
        "83.3%",
        f"R4 {POLICY.rule('R4').title}",
        "the refusal does not refuse",
        "near an earlier request of the set",
        "<td>bench</td><td>80</td><td>6</td>",
        "<td>capability</td><td>40</td><td>0</td>",
        "forethought build a.csv",
        "rules (no language model)",
        "prefers-color-scheme: dark",
        "asks really",
    ],
)
def test_page_says(tmp_path: Path, said: str) -> None:
    assert said in _page(tmp_path, _summary(show_harmful=True))


def test_page_says_where_a_row_has_no_answer(tmp_path: Path) -> None:
    page = _page(tmp_path, summarise([_answered(0, answer="")], {}))
    assert "none: the row teaches the reasoning alone" in page


def test_bars_are_in_percent_of_the_longest_and_the_rest_is_summed() -> None:
    counts = [Count(label="a", harmful=30, harmless=10), *[Count(label=str(n), harmless=4) for n in range(50)]]
    drawn = bars(counts)
    assert (drawn[0]["harmful_percent"], drawn[0]["harmless_percent"]) == (75.0, 25.0)
    assert drawn[1]["harmless_percent"] == 10.0
    assert (drawn[-1]["label"], drawn[-1]["rows"], drawn[-1]["harmless_percent"]) == ("11 others", 44, 0.0)
    lengths = Lengths(median=1, ninety=1, longest=1, bins=(("0-4", 8), ("5-9", 2)))
    assert [column["percent"] for column in columns(lengths)] == [100.0, 25.0]


def test_terminal_bars() -> None:
    assert bar(4, 4, 3) == "███"
    assert bar(2, 4, 3) == "█▌"
    assert bar(0, 4, 3) == ""
    assert bar(1, 10_000, 3) == "▏"
    assert bar(0, 0, 3) == ""
    assert spark([0, 1, 8]) == " ▁█"


def test_terminal_view_shows_the_counts() -> None:
    printed = _printed(_summary())
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
    out = io.StringIO()
    found = overlaps(
        str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), show_harmful=show, to=Console(file=out, width=300)
    )
    assert found == 1
    assert (SECRET in out.getvalue()) is seen


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_page_works_in_a_browser(tmp_path: Path, scheme: str, width: int) -> None:
    path = tmp_path / "data.html"
    write_data_page(path, _summary())
    with empty_page(scheme, width) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert page.title() == "My <set> - Forethought"
        assert page.locator(".tile").count() == 6
        assert page.locator("#evaluation tr").count() == 3
        row = page.locator("details").first
        row.locator("summary").click()
        assert row.locator("dl").is_visible()
        styles = page.locator("section", has=page.locator("h3", has_text="Styles")).locator(".track .harmful")
        # Bars are drawn to scale: 10 of 45 rows as they are, and 5 of 45 in slang.
        wide, narrow = (styles.nth(n).bounding_box()["width"] for n in (0, 1))
        assert wide == pytest.approx(2 * narrow, abs=1.5)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(14, 18, 23)")
        # On a narrow screen the page itself must not scroll sideways.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
        assert asked == [path.as_uri()]
