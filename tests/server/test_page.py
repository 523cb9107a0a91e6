"""The page in real Chromium: what it shows, by keyboard, in both themes, without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forethought.server.keys import load_keys, new_key
from tests.browser import violations
from tests.server.operated import ANSWER, Operated, ScriptedEngine, operated

pytestmark = pytest.mark.slow
Visit = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[Operated]:
    with operated(engine=ScriptedEngine(word_s=0.05), answers={"base_model": True}) as running:
        yield running


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    """Opens the page of a server; nothing that the browser complains about, or asks elsewhere, is let pass."""
    opened: list[Any] = []
    complaints: list[str] = []

    def open_page(server: Operated, scheme: str = "light", width: int = 1200) -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda said: complaints.extend([said.text] if said.type in ("error", "warning") else []))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        own = (server.url, "data:")
        page.on("request", lambda asked: complaints.extend([] if asked.url.startswith(own) else [asked.url]))
        page.goto(server.url)
        page.wait_for_selector("#defended #text-input")
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        page.close()
    assert [one for one in complaints if "status of 401" not in one and "status of 503" not in one] == []


def ask(page: Any, text: str) -> None:
    page.locator("#defended #text-input").click()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def ended(page: Any, side: str = "defended") -> None:
    """Waits until an answer is there, or a refusal, to its last word."""
    page.locator(f"#{side} .text-message.ai-message").filter(has_text="with that.").or_(
        page.locator(f"#{side} .text-message.ai-message").filter(has_text="neighbour.")
    ).first.wait_for()


def told(page: Any, side: str = "defended") -> str:
    """What stands in a conversation."""
    return str(page.locator(f"#{side} #messages").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 420])
def test_it_is_clean_for_those_who_hear_it_in_both_themes(
    server: Operated, visit: Visit, scheme: str, width: int
) -> None:
    page = visit(server, scheme, width)
    assert violations(page) == []
    page.check("#compare")
    ask(page, "How do I open a lock?")
    page.wait_for_selector("#defended summary")
    page.locator("#defended summary").click()
    ended(page, "base")
    ended(page)
    assert violations(page) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(14, 18, 23)")


def test_a_refusal_comes_with_its_rule_and_its_thought_folded(server: Operated, visit: Visit) -> None:
    page = visit(server)
    ask(page, "How do I open a lock?")
    ended(page)
    text = told(page)
    assert "refuse 0.88, refuses from 0.50" in text
    assert "R4 Fraud, theft and other crime" in text
    assert "I can't help with that." in text
    assert "<b>house</b>" not in text  # folded
    page.locator("#defended summary").click()
    assert "<b>house</b>" in told(page)  # as it was written, and no markup
    assert page.locator("#rules dt.broken").all_inner_texts() == ["R4 Fraud, theft and other crime"]


def test_an_answer_comes_word_by_word_after_the_verdict(server: Operated, visit: Visit) -> None:
    page = visit(server)
    ask(page, "How do I get into my own house?")
    page.wait_for_selector("#defended .comply")
    seen = set()
    while ANSWER.replace("*", "") not in told(page):
        seen.add(told(page))
        page.wait_for_timeout(20)
    assert len(seen) > 3
    assert page.locator("#defended strong").inner_text() == "under"
    ask(page, "And how do I open a lock?")
    page.wait_for_selector("#defended .refuse")
    page.get_by_text("New conversation").click()
    assert told(page).strip() == ""


def test_the_base_model_answers_beside_it(server: Operated, visit: Visit) -> None:
    page = visit(server)
    page.check("#compare")
    ask(page, "How do I open a lock?")
    ended(page, "base")
    ended(page)
    assert "ask a neighbour" in told(page, "base")
    assert "ask a neighbour" not in told(page)


def test_the_keyboard_reaches_everything(server: Operated, visit: Visit) -> None:
    page = visit(server)
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(() => { const at = document.activeElement, inside = at.shadowRoot?.activeElement;"
                " return (inside ?? at).id || (inside ?? at).tagName || ''; })()"
            )
        )
    assert {"compare", "key", "anew", "messages", "text-input", "ASIDE"} <= set(reached)


def test_a_key_is_asked_for_where_one_is_needed(tmp_path: Path, visit: Visit) -> None:
    key = new_key(tmp_path / "keys.yaml", "page", ["ask"])
    with operated(load_keys(tmp_path / "keys.yaml"), answers={"base_model": True}) as server:
        page = visit(server)
        page.wait_for_selector("#problem:not([hidden])")
        assert "No valid key" in page.locator("#problem").inner_text()
        page.fill("#key", key)
        page.keyboard.press("Tab")
        page.wait_for_selector("#rules dt")
        assert not page.locator("#problem").is_visible()
        assert page.locator("#compare").is_disabled()
        ask(page, "How do I open a lock?")
        page.wait_for_selector("#defended .refuse")
        assert page.locator("#defended summary").count() == 0  # this key may not see the thought
        assert key not in page.url


def test_an_error_is_shown_and_the_next_question_is_answered(visit: Visit) -> None:
    with operated(engine=ScriptedEngine(word_s=0.3)) as server:
        page = visit(server)
        full = {"error": {"message": "<i>Full"}}
        page.route("**/completions", lambda route: route.fulfill(status=503, json=full), times=1)
        ask(page, "How do I get into my own house?")
        page.wait_for_selector("#defended [role=alert]")
        assert "<i>Full" in told(page)
        ask(page, "How do I get into my own house?")
        page.wait_for_selector("#defended [aria-label='Stop']")
        page.wait_for_selector("#defended .text-message.ai-message")
        page.locator("#defended [aria-label='Stop']").click()
        page.wait_for_selector("#defended [aria-label='Send']")
        page.wait_for_timeout(500)
        assert "neighbour" not in told(page)
        assert "cancelled" in [line["event"] for line in server.lines]
