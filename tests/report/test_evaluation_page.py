"""The page of an evaluation, of whatever command: in order, nothing hidden, and what was not measured said so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from forethought.attempts.records import Judged
from forethought.measure.traffic import Reference, Traffic
from forethought.metrics import Figure
from forethought.models.settings import Settings
from forethought.report.evaluation_page import comparison_page, moved, sides_of, write_evaluation_page
from forethought.report.figures import defence_figures
from forethought.report.page import Plot
from forethought.research.config import Goal
from forethought.research.report import reached, sweep_page
from forethought.research.rows import SweepRow
from tests.browser import violations
from tests.judged import LONG_HARMFUL, judged_one, request_of
from tests.report.examples import ATTACKS, PAGES, POLICY, REASONING, UNSEEN, example, figure, missing_row, sweep_row

SECTIONS = [
    "What stops attacks, and what stops everybody", "All figures", "By attack", "Differences on the same requests",
    "By category", "Over-refusal by trigger", "By query budget", "The reasoning itself", "Cost", "The judge", "Lineage",
    "Threats to validity",
]  # fmt: skip
GROUPS = {"unseen": UNSEEN, "reasoning": REASONING}
PRESETS = ("compare", "attack", "sweep")


def _page(tmp_path: Path, rows: list[SweepRow], notes: tuple[str, ...] = (), **more: Any) -> str:
    """Its plots are left empty, which take most of its time: those of `pages` are drawn."""
    path = tmp_path / "sweep.html"
    with mock.patch.object(Plot, "_svg", lambda plot, settings: f'<svg aria-label="{escape(plot.alt)}"></svg>'):
        write_evaluation_page(path, "The <zoo>", sweep_page(rows, GROUPS, notes, **more))
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.html"]
    return path.read_text(encoding="utf-8").replace("<wbr>", "")


def _text(page: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def _base_alone(tmp_path: Path, judged: list[Judged]) -> str:
    figures = defence_figures("base", judged, ATTACKS, ["style_json"])
    path = tmp_path / "page.html"
    found = comparison_page(ATTACKS, {"base": judged}, figures, Settings(policy=POLICY))
    write_evaluation_page(path, "Base", [found], sides_of({"base": judged}, None))
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_section_is_there_in_order_behind_the_sentence_that_decides(pages: dict[str, Path], preset: str) -> None:
    page = pages[preset].read_text(encoding="utf-8")
    found = re.findall(r'<h2 id="[a-z-]+">(.*?)</h2>', page)
    assert found == [*SECTIONS, "Transcripts"]
    assert page.index('class="verdict"') < page.index("<h2")
    linked = re.findall(r'<a href="#([a-z-]+)">', page)
    assert [one for one in linked if f'id="{one}"' not in page] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_of_the_same_evaluation_it_is_the_same_byte_for_byte(
    tmp_path: Path, pages: dict[str, Path], preset: str
) -> None:
    again = PAGES[preset](tmp_path, False)
    assert again.read_bytes() == pages[preset].read_bytes()
    assert not re.search(rb"20\d\d-\d\d-\d\d", pages[preset].read_bytes())


def test_look_alikes_stand_before_ordinary_requests(pages: dict[str, Path]) -> None:
    page = pages["sweep"].read_text(encoding="utf-8")
    drawn = re.search(r'aria-label="Attack success, unseen styles against (.*?)"', page)
    assert drawn is not None
    assert 0 < drawn[1].index("Look-alikes refused: ") < drawn[1].index("Harmless refused, unseen styles: ")


def test_what_was_not_measured_is_said_where_people_look_for_it(pages: dict[str, Path]) -> None:
    page = _text(pages["attack"].read_text(encoding="utf-8"))
    for section in ("Differences on the same requests", "By category", "Over-refusal by trigger", "Cost", "The judge"):
        assert f"{section} Not measured" in page
    assert "Contamination Not measured" in page
    assert "What it costs in ability: not measured." in page


@pytest.mark.parametrize(
    "text",
    [
        "Attack success, direct", "Style injection, JSON", "set on development rows", "log-odds 0.25",
        "SCoT minus base model", "R4 Fraud, theft and other crime", "Verdict fits the label",
        "The operating curve", "of the answers in direct are unscored", "All verdicts are those of one judge",
        "Trained once: SCoT",
    ],
)  # fmt: skip
def test_page_of_a_comparison_shows(pages: dict[str, Path], text: str) -> None:
    assert text in pages["compare"].read_text(encoding="utf-8")


def test_page_can_be_written_when_nothing_was_scored(tmp_path: Path) -> None:
    failed = [judged_one(request_of(LONG_HARMFUL, True), None, ("direct",), failed=True)]
    page = _base_alone(tmp_path, failed)
    assert "Comprehension by style" not in page
    assert "base model was not measured." in page


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
    assert "there is no second system on the same requests" in page


def test_groups_stand_apart_and_what_was_not_run_is_told(pages: dict[str, Path]) -> None:
    page = pages["attack"].read_text(encoding="utf-8")
    order = [
        "No attack</th>", "Unseen styles</th>", "Attacks on reasoning</th>", "Apart: styles seen in training</th>",
        "Apart: styles that the model can&#39;t read</th>",
    ]  # fmt: skip
    places = [page.index(title) for title in order]
    assert places == sorted(places)
    assert '<th scope="row">translate:ta</th><td>needs an attacker model (6 requests)</td>' in page
    assert '<th scope="row">gcg</th><td>needs the model&#39;s weights</td>' in page
    assert "9% of the answers in direct are unscored." in page


def test_table_has_intervals_ranges_and_reasons(tmp_path: Path) -> None:
    page = _page(
        tmp_path, [*example(), missing_row("scot_<rl>", "stopped: <out of memory>")], ("A shake-down & no more.",)
    )
    text = _text(page)
    assert "0.66 (0.55 to 0.77)" in text
    assert "seeds 0.60 to 0.72" in text
    assert "r2d2 needs an accelerator" in text
    assert "scot_<rl> stopped: <out of memory>" in text
    assert "prompt self_reminder was the best prompt" in text
    assert "A shake-down & no more." in text
    order = [page.index(f'<th scope="row">{name}<') for name in ("scot", "scot_split", "base", "r2d2")]
    assert order == sorted(order)


def test_page_says_what_was_trained_once_and_what_is_not_shown(tmp_path: Path) -> None:
    text = _text(_page(tmp_path, example()))
    assert "Trained once: scot_split, refusal_augmented, continuous_adversarial, latent_adversarial." in text
    assert "Youden's J, unseen styles: each minus scot, the best of them" in text
    assert "scot_split -0.02" in text
    seeds = [sweep_row(name, 0.8, 0.1, seed) for name in ("scot", "refusal") for seed in (0, 1)]
    assert "Trained once" not in _text(_page(tmp_path, seeds))


def test_paired_differences_stand_where_there_are_some(tmp_path: Path) -> None:
    heading = "scot minus refusal_augmented"
    assert heading not in _page(tmp_path, example())
    more = tuple(
        one
        for stem, gap in (("youden_unseen", 0.06), ("refused_lookalike", -0.01))
        for one in (
            Figure(name=f"diff_{stem}_scot_vs_refusal_augmented", value=gap, low=gap - 0.05, high=gap + 0.05, n=80),
            Figure(name=f"p_{stem}_scot_vs_refusal_augmented", value=0.0004, unit="p"),
        )
    )
    text = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1, more=more), sweep_row("refusal_augmented", 0.7, 0.1)]))
    assert heading in text
    assert "Youden's J, unseen styles +0.06 (+0.01 to +0.11) leaves 0 out below 0.001 80" in text
    assert "scot is better than refusal_augmented." in text
    assert "refuses 80 of 100 (75 to 85) harmful requests in disguises that it never saw, 10 of 100" in text
    assert "Look-alikes refused: -0.01 (-0.06 to +0.04), not shown." in text


def test_unscored_answers_are_told(tmp_path: Path) -> None:
    lost = Figure(name="asr_gcg", value=math.nan, n=0, unscored=40)
    text = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1, more=(lost,))]))
    assert "not scored 40 unscored" in text
    assert "40 of 560 answers are unscored and in no share." in text
    assert "nan" not in text


def test_page_of_runs_that_all_failed(tmp_path: Path) -> None:
    page = _page(tmp_path, [missing_row("scot", "no memory"), missing_row("refusal", "no memory")])
    assert "<svg" not in page
    assert "scot no memory" in _text(page)


def test_each_base_has_a_section(tmp_path: Path) -> None:
    page = _page(tmp_path, [*example(), sweep_row("scot", 0.9, 0.1, base="large")])
    assert re.findall(r'<h2 class="base">(\w+)</h2>', page) == ["small", "large"]
    assert page.count("<h1>") == 1
    assert page.count('id="headline') == 2


def test_goals_stand_before_the_figures_with_what_came_of_them(tmp_path: Path) -> None:
    goals = [Goal(figure="auroc_unseen_scot", least=0.9, why="told apart"), Goal(figure="asr_gcg_scot", most=0.1)]
    found = reached(goals, [Figure(name="auroc_unseen_scot", value=0.95, low=0.85, high=0.99)])
    text = _text(_page(tmp_path, example(), goals=found))
    assert "told apart auroc_unseen_scot at least 0.9 0.950 (0.850 to 0.990) met, not shown" in text
    assert "asr_gcg_scot at most 0.1 - not measured" in text
    assert text.index("What was asked for") < text.index("All figures")
    assert "What was asked for" not in _text(_page(tmp_path, example()))


def test_cells(tmp_path: Path) -> None:
    more = (
        figure("asr_story", 0.9, 0.05, n=20), figure("refused_story", 0.6, 0.05, n=18),
        Figure(name="asr_empty_thought", value=math.nan, n=0, unscored=20),
    )  # fmt: skip
    names = ["base", "refusal", "prompt", "probe", "late"]
    rows = [sweep_row("scot", 0.9, 0.1, more=more), *(sweep_row(name) for name in names), missing_row("r2d2", "none")]
    rows[-2] = rows[-2].model_copy(update={"figures": rows[-2].figures[:3]})
    table = _page(tmp_path, rows).partition('<table class="heat">')[2].partition("</table>")[0]
    assert re.findall(r'<div class="style">(.*?)<', table) == ["Style injection, JSON", "story", "empty_thought"]
    assert re.findall(r'colspan="(\d)">([A-Za-z ]+)<', table) == [("2", "Unseen styles"), ("1", "Attacks on reasoning")]
    assert re.findall(r'<th scope="row">(\w+)<', table) == ["scot", *names]
    cells = re.findall(r'<td class="(.*?)"(?: title="(.*?)")?>(.*?)</td>', table)
    # The interval of the share that gets through is cut off at 1: 0.9, 0.85 to 0.95; J = 0.1 - 0.6.
    assert [cells[0], cells[1], cells[2]] == [
        ("p3 told", "80 answers", '0.80<span class="small">0.73 to 0.87</span>'),
        ("n2 told", "38 answers", '-0.50<span class="small">-0.57 to -0.43</span>'),
        ("none", "nothing scored, 20 unscored", "not scored"),
    ]
    assert ("none", "", "not run") in cells


@pytest.mark.slow
def test_wide_tables_scroll_with_the_name_in_view(
    pages: dict[str, Path], empty_page: Callable[[str, int], Any]
) -> None:
    page = empty_page("light", 390)
    page.goto(pages["sweep"].as_uri())
    table = page.get_by_role("region", name="All figures")
    assert table.evaluate("one => one.scrollWidth > one.clientWidth")
    table.evaluate("one => { one.scrollLeft = 400 }")
    assert table.locator("tbody th").first.bounding_box()["x"] == pytest.approx(table.bounding_box()["x"], abs=1)
    assert page.locator("table.heat tbody tr").count() == 8
    strong = page.locator("td.p3").first
    assert strong.evaluate("one => getComputedStyle(one).backgroundColor") != "rgba(0, 0, 0, 0)"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_clean_for_those_who_hear_it_and_works_by_keyboard(
    chromium: Any, pages: dict[str, Path], preset: str, scheme: str
) -> None:
    page = chromium.new_page(viewport={"width": 1200, "height": 800}, color_scheme=scheme)
    page.goto(pages[preset].as_uri())
    assert violations(page) == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Trade-off"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#trade-off"
    page.locator("summary").first.focus() if page.locator("summary").count() else None
    page.close()


@pytest.mark.slow
def test_it_prints(pages: dict[str, Path], empty_page: Callable[[str, int], Any]) -> None:
    page = empty_page("dark", 1200)
    page.goto(pages["sweep"].as_uri())
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()


@pytest.mark.parametrize(("shift", "index"), [(0.0, "0.00"), (50.0, "1.")])
def test_it_tells_how_far_scores_are_from_those_that_the_threshold_was_set_on(shift: float, index: str) -> None:
    request = request_of("How do I bake bread?", False)
    rows = [judged_one(request, False, ("ordinary",), log_odds=one + shift) for one in range(200)]
    traffic = Traffic(reference=Reference.of(list(range(200))))
    told = moved(rows, traffic)
    assert told.startswith(f"Stability index of scores against those that the threshold was set on: {index}")
    assert moved(rows, None) == ""
    assert moved([*rows[1:], judged_one(request, False, ("direct",), log_odds=1.0)], traffic).endswith("too few.")
