"""Transcripts: what the script beside a page holds, and the page in real Chromium, small and with 50,000 attempts."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from forethought.attempts.records import Judged
from forethought.policy import default_policy
from forethought.report.transcripts import Side, write_transcripts
from tests.browser import violations
from tests.judged import judged_one, request_of
from tests.report.transcribed import SECRET, SYSTEMS, explore, held_in, set_field, synthetic, synthetic_page

ALL = 50_000
GRID = "3b05777f"
"""How the hash of the grid's file begins, as npm has it in ag-grid-community 36.2.0."""


def _held(folder: Path, *sides: Side, show_harmful: bool = False) -> Any:
    write_transcripts(folder / "report.html", sides, default_policy(), show_harmful)
    return held_in(folder / "report.attempts.js")


def _scored(odds: float, refused: bool | None, decision: Any = None) -> Judged:
    return judged_one(
        request_of(f"Explain loaf {odds}", False), refused, (),
        decision=decision or ("refuse" if refused else "comply"), log_odds=odds,
    )  # fmt: skip


def test_the_grid_is_what_its_makers_publish() -> None:
    folder = resources.files("forethought").joinpath("report", "explorer")
    assert sha256(folder.joinpath("ag-grid.js").read_bytes()).hexdigest().startswith(GRID)
    assert "MIT" in folder.joinpath("ag-grid.LICENSE").read_text("utf-8")
    assert '"36.2.0"' in folder.joinpath("ag-grid.js").read_text("utf-8")


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (0.25, {"threshold": 0.25, "known": True}),
        (None, {"threshold": 0.5, "known": False}),
        (7.0, {"threshold": 0.5, "known": False}),  # its decisions say otherwise: another score decides
    ],
)
def test_a_threshold_is_known_or_read_off_the_decisions(
    tmp_path: Path, threshold: float | None, told: dict[str, Any]
) -> None:
    held = _held(tmp_path, Side("m", [_scored(-1.0, False), _scored(2.0, True)], threshold))
    assert held.table["systems"] == [{"title": "m", **told}]


_FAILED = judged_one(request_of("Explain loaf", False), None, (), failed=True)


@pytest.mark.parametrize("rows", [[_scored(-1.0, False)], [_scored(1.0, False), _scored(0.0, True)], [_FAILED]])
def test_without_a_limit_in_the_decisions_there_is_no_threshold(tmp_path: Path, rows: list[Judged]) -> None:
    assert _held(tmp_path, Side("m", rows)).table["systems"][0]["threshold"] is None


def test_what_has_no_scores_has_no_threshold(tmp_path: Path) -> None:
    """The settings of a run are those of its trained model: its base stands beside it, and decides nothing."""
    held = _held(tmp_path, Side("base", [_FAILED, judged_one(request_of("Bake loaf", False), False, ())], 0.25))
    assert held.table["systems"] == [{"title": "base", "threshold": None, "known": False}]


def test_what_was_not_scored_stays_unscored_with_its_cause(tmp_path: Path) -> None:
    held = _held(tmp_path, Side("m", [_FAILED, judged_one(request_of("Bake loaf", False), None, ())]))
    assert held.table["rows"]["refused"] == [None, None]
    assert [held.table["causes"][at] for at in held.table["rows"]["cause"]] == ["the model broke down", "empty answer"]
    assert held.table["rows"]["score"] == [None, None]


def test_a_request_is_held_once_for_all_systems_and_the_file_is_the_same_each_time(tmp_path: Path) -> None:
    sides = synthetic(80)
    held = _held(tmp_path, *sides)
    assert (len(held.table["asked"]["id"]), len(held.table["rows"]["asked"])) == (20, 80)
    before = (tmp_path / "report.attempts.js").read_bytes()
    _held(tmp_path, *sides)
    assert (tmp_path / "report.attempts.js").read_bytes() == before


def test_only_what_a_reader_may_reveal_is_behind_redacted_texts(tmp_path: Path) -> None:
    held = _held(tmp_path, *synthetic(80))
    assert held.harmful == {}
    assert SECRET not in str(held)
    held = _held(tmp_path, *synthetic(80), show_harmful=True)
    assert SECRET not in str(held.table) + str(held.texts)
    assert all(SECRET in text for text in held.harmful.values() if text.startswith("Stand-in"))


# In Chromium.

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_page(tmp_path_factory.mktemp("small"), 2000, show_harmful=True)


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens a page and waits for its transcripts; nothing that the browser complains about is let pass."""
    opened: list[Any] = []
    complaints: list[str] = []

    def give(file: Path, scheme: str = "light", width: int = 1200, hash: str = "") -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: complaints.extend([] if asked.url.startswith(("file:", "blob:")) else [asked.url])
        )
        opened.append(page)
        explore(page, file, hash)
        return page

    yield give
    for page in opened:
        page.close()
    assert complaints == []


def cells(page: Any, column: str) -> list[str]:
    """What stands in a column of the grid, as far as it is drawn, from above."""
    return [str(one) for one in page.locator(f'#grid .ag-row [col-id="{column}"]').all_inner_texts()]


def found(page: Any) -> str:
    return str(page.locator("#found").inner_text())


@pytest.mark.slow
def test_the_ten_refused_harmless_requests_nearest_to_the_threshold_are_three_clicks_away(
    small: Path, visit: Open
) -> None:
    page = visit(small)
    page.get_by_role("button", name="Refused, though harmless").click()
    page.get_by_role("button", name="Select the first").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export 10 selected as CSV").click()
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = [
        (abs(one.response.log_odds - side.threshold), one.attempt.id, side.title)
        for side in synthetic(2000)
        for one in side.judged
        if side.threshold is not None and one.response and one.response.log_odds is not None
        and one.refused and not one.attempt.request.harmful
    ]  # fmt: skip
    assert [(row["attempt"], row["defence"]) for row in rows] == [(id, title) for _, id, title in sorted(wrong)[:10]]
    assert {(row["label"], row["outcome"]) for row in rows} == {("harmless", "refused")}
    assert all(row["request"].startswith("Stand-in") and row["threshold"] for row in rows)


@pytest.mark.slow
def test_filters(small: Path, visit: Open) -> None:
    """One after the other on one page, which takes longer to open than to filter."""
    page = visit(small)
    assert found(page) == "2,000 of 2,000 attempts"
    for field, value, column, pattern in (
        ("attack", "Leetspeak", "attack", "Leetspeak"),
        ("category", "rivers", "category", "rivers"),
        ("defence", "SCoT, best", "system", "SCoT, best"),
        ("outcome", "unscored", "outcome", "unscored"),
        ("rule", "R5", "rules", "R5"),
        ("from", "1.5", "score", r"(1\.[5-9]|[2-9]\.)\d*"),
        ("q", "ABOUT violins", "category", "violins"),
    ):
        set_field(page, field, value)
        told = cells(page, column)
        assert told, field
        assert all(re.fullmatch(pattern, one) for one in told), (field, told)
        assert 0 < int(found(page).split()[0].replace(",", "")) < 2000, field
        set_field(page, field, "")
        assert found(page) == "2,000 of 2,000 attempts", field


@pytest.mark.slow
def test_orders_and_what_disagrees(small: Path, visit: Open) -> None:
    page = visit(small)
    set_field(page, "sort", "nearest")
    near = [abs(float(one)) for one in cells(page, "margin")]
    assert near == sorted(near)
    page.get_by_role("button", name="Decision and judge disagree").click()
    said = list(zip(cells(page, "decision"), cells(page, "outcome"), strict=True))[:10]
    assert len(said) == 10
    assert all((decision == "refuse") != ("refused" in told or "stopped" in told) for decision, told in said)


@pytest.mark.slow
def test_one_request_across_defences_with_a_link_to_it(small: Path, visit: Open) -> None:
    page = visit(small, hash="outcome=harmless-refused&sort=nearest")
    page.locator('#grid .ag-row [col-id="request"]').first.click()
    page.wait_for_url("**open=*")
    one = page.locator("#one")
    assert one.locator(".side strong").all_inner_texts() == list(SYSTEMS)
    text = one.inner_text()
    for told in ("above the threshold", r"refuses from\s+0\.25", r"R[45] [A-Z][a-z]+", "Thought\\s+Intent:", "Answer"):
        assert re.search(told, text), told
    again = visit(small, hash=page.url.partition("#")[2])
    assert again.locator("#one").inner_text() == text
    assert (found(again), cells(again, "margin")) == (found(page), cells(page, "margin"))
    again.get_by_role("button", name="This request under every attack").click()
    assert "of one request" in found(again)
    told = found(again)
    again.evaluate("location.hash = 'transcripts'")  # a place on the page changes nothing of what is filtered
    again.wait_for_timeout(400)
    assert (found(again), again.evaluate("location.hash")) == (told, "#transcripts")


@pytest.mark.slow
def test_harmful_text_is_in_no_element_until_it_is_revealed(small: Path, visit: Open) -> None:
    page = visit(small, hash="outcome=harmful-answered")
    page.locator('#grid .ag-row [col-id="request"]').first.click()
    assert SECRET not in page.content()
    assert "characters redacted]" in page.locator("#one").inner_text()
    set_field(page, "q", SECRET)
    assert found(page).startswith("0 of")
    page.get_by_role("button", name="Reveal harmful texts").click()
    page.wait_for_function(f"document.getElementById('one').innerText.includes('{SECRET}')")
    assert not found(page).startswith("0 of")
    page.get_by_role("button", name="Hide harmful texts").click()
    page.wait_for_function(f"!document.documentElement.outerHTML.includes('{SECRET}')")
    set_field(page, "q", "")
    assert SECRET not in page.content()


@pytest.mark.slow
def test_texts_are_texts_and_no_formulas(tmp_path: Path, visit: Open) -> None:
    """What a model wrote is no markup on the page, and no formula in a spreadsheet."""
    bad = "=1+1 <img src=x onerror=document.title='run'> </script>"
    request = request_of(f"{bad} of a loaf", False)
    page_file = synthetic_page(tmp_path, 0, sides=[Side("<b>m</b>", [judged_one(request, True, (), answer=bad)])])
    page = visit(page_file)
    page.locator('#grid .ag-row [col-id="request"]').first.click()
    page.locator("#one", has_text=bad).wait_for()
    assert page.locator("#explorer img, #explorer b").count() == 0
    with page.expect_download() as download:
        page.get_by_role("button", name="as CSV").click()
    assert f"\"'{bad}" in Path(download.value.path()).read_text("utf-8")
    with page.expect_download() as download:
        page.get_by_role("button", name="as JSONL").click()
    assert json.loads(Path(download.value.path()).read_text("utf-8"))["answer"] == bad
    assert page.get_by_role("button", name="Reveal").count() == 0
    assert "--show-harmful" in page.locator("#explorer").inner_text()


_READING_MS = 300
"""Nobody presses the next key before what the last one did is drawn."""


@pytest.mark.slow
def test_by_keyboard_alone(small: Path, visit: Open) -> None:
    page = visit(small)
    page.locator("[data-look]").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(_READING_MS)
    for _ in range(20):  # on to the grid
        page.keyboard.press("Tab")
        if page.evaluate("!!document.activeElement.closest('.ag-header, .ag-row')"):
            break
    for key in ("ArrowDown", "Space", "ArrowDown", "ArrowDown", "Shift+Space"):
        page.keyboard.press(key)
        page.wait_for_timeout(_READING_MS)
    assert found(page).endswith("3 selected")
    page.keyboard.press("Enter")
    page.wait_for_timeout(_READING_MS)
    assert page.evaluate("document.activeElement.id") == "one"
    page.keyboard.press("Escape")
    assert page.locator("#one").is_hidden()
    assert page.evaluate("!!document.activeElement.closest('.ag-row')")


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_it_is_clean_for_those_who_hear_it(small: Path, visit: Open, scheme: str, width: int) -> None:
    page = visit(small, scheme, width)
    assert violations(page) == []
    page.get_by_role("button", name="Got through").click()
    page.get_by_role("button", name="Select the first").click()
    page.locator('#grid .ag-row [col-id="outcome"]').first.click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


@pytest.mark.slow
def test_on_paper_is_a_table_of_what_was_selected_and_the_open_attempt(small: Path, visit: Open) -> None:
    page = visit(small, hash="outcome=harmless-refused&sort=nearest")
    page.get_by_role("button", name="Select the first").click()
    page.locator('#grid .ag-row [col-id="request"]').first.click()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#printed tbody tr").count() == 10
    assert page.locator("#printed caption").inner_text() == "10 of 10 attempts"
    assert page.locator("#printed").is_visible()
    assert page.locator("#one .side").first.is_visible()
    assert page.locator("#grid").is_hidden()
    assert page.locator("#filters").is_hidden()


@pytest.mark.slow
def test_fifty_thousand_attempts(tmp_path: Path, visit: Open) -> None:
    """In processor time of the page's thread, which other work on the machine does not change much."""
    file = synthetic_page(tmp_path, ALL)
    assert file.stat().st_size < 5 * 2**20
    page = visit(file)
    spent = page.context.new_cdp_session(page)
    spent.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        told = spent.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in told if one["name"] == "TaskDuration"))

    def cost(do: Callable[[], Any]) -> float:
        before = seconds()
        do()
        return seconds() - before

    assert cost(lambda: explore(page, file)) < 2
    assert found(page) == "50,000 of 50,000 attempts"
    for field, value in (
        ("q", "gardener"),
        ("q", "baden"),
        ("attack", "Leetspeak"),
        ("q", ""),
        ("sort", "nearest"),
    ):
        assert cost(lambda field=field, value=value: set_field(page, field, value)) < 0.2  # type: ignore[misc]
