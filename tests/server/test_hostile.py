"""What a hostile client sends: no thought is skipped, no place is kept, and no error says what was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from forethought.records import Message
from forethought.server.app import create_app
from forethought.server.config import Settings
from forethought.server.errors import ApiError
from forethought.server.records import Caller, Event
from forethought.server.run import Hooks
from tests.server.fuzzed import run_fuzz
from tests.server.live import ScriptedEngine, live

ASK: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "hello there"}]}


@pytest.mark.parametrize("count", [300, pytest.param(1_500, marks=pytest.mark.slow)])
def test_fuzzed_conversations_never_skip_the_thought(count: int, tmp_path: Path) -> None:
    """Their seed is their number; 10,000 are asked by benchmarks/serve.py."""
    said, skipped = run_fuzz(count, tmp_path)
    statuses = [status for status, _ in said]
    assert {status for status in statuses if status != 200} <= {400, 403, 404, 413, 422}
    assert statuses.count(200) > count / 8  # the others are refused by their shape
    assert skipped == 0
    for status, text in said:
        assert status != 200 or ("choices" in text and 'data: {"error"' not in text)


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def app(engine: ScriptedEngine, events: list[Event]) -> Any:
    async def admit(request: Any) -> Caller:
        if request.headers.get("authorization") != "Bearer right":
            raise ApiError(401, "This key is not known", "invalid_api_key")
        return Caller(id="right", may=frozenset({"ask", "tighten"}))

    settings = Settings(max_body_bytes=10_000, body_timeout_s=0.5, max_waiting=3, think_timeout_s=1.0)
    return create_app(engine, settings, Hooks(admit=admit, observers=[events.append]))


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[httpx.Client]:
    with live(app) as url, httpx.Client(base_url=url, headers={"authorization": "Bearer right"}, timeout=30) as made:
        yield made


def ask(client: httpx.Client, text: str = "hello there", **more: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={**ASK, "messages": [{"role": "user", "content": text}], **more})


def test_the_unauthorised_are_turned_away_before_their_body_is_read(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    before = len(engine.asked)
    for path in ("/v1/chat/completions", "/v1/models", "/beta/litellm_basic_guardrail_api", "/v1/nothing"):
        said = client.post(path, content=b"x" * 100_000, headers={"authorization": "Bearer wrong"})
        assert said.status_code == 401
        assert said.json()["error"]["code"] == "invalid_api_key"
    assert len(engine.asked) == before
    assert client.get("/healthz", headers={"authorization": ""}).status_code == 200


def test_what_a_key_may_not_see_is_withheld(client: httpx.Client) -> None:
    said = ask(client).json()
    assert "reasoning" not in said["choices"][0]["message"]
    assert said["moderation"]["verdict"]["intent"] is None
    assert "reasoning" not in ask(client, stream=True).text.replace("reasoning_tokens", "")
    kinds = [item["type"] for item in client.post(
        "/v1/responses", json={"model": "scripted", "input": "hello"}).json()["output"]]  # fmt: skip
    assert kinds == ["message"]


def test_large_bodies_are_refused(client: httpx.Client) -> None:
    assert ask(client, "x" * 20_000).status_code == 413

    def parts() -> Iterator[bytes]:  # without a length
        for _ in range(20):
            yield b"x" * 1000

    assert client.post("/v1/chat/completions", content=parts()).status_code == 413


def test_a_body_that_drips_in_is_given_up(client: httpx.Client) -> None:
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port)) as connection:
        head = ["POST /v1/completions HTTP/1.1", "Host: x", "Authorization: Bearer right", "Content-Length: 500"]
        connection.sendall("\r\n".join([*head, "", "{"]).encode())
        connection.settimeout(5)
        assert b" 408 " in connection.recv(100)


def test_paths_and_headers_that_are_no_such(client: httpx.Client) -> None:
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/..%2f..%2fetc",
        "/v1//chat",
        "/page/../x",
    ):
        assert client.get(path).status_code in (404, 405)
    said = ask(client, "copy a film\r\nx-injected: yes")
    assert "x-injected" not in said.headers
    assert client.get("/v1/models", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_thresholds_can_be_tightened_and_never_loosened(client: httpx.Client) -> None:
    assert ask(client, threshold=0.1).headers["x-forethought-verdict"] == "refuse"
    assert ask(client, threshold=0.3).headers["x-forethought-verdict"] == "comply"
    assert ask(client, "copy a film", threshold=1.0).headers["x-forethought-verdict"] == "refuse"


def test_a_thought_that_never_ends_is_refused(client: httpx.Client) -> None:
    said = ask(client, "forever")
    assert said.headers["x-forethought-verdict"] == "refuse"
    assert "did not end" in said.headers["x-forethought-cause"]


def test_too_many_at_once_are_told_to_come_again(client: httpx.Client, app: Any, events: list[Event]) -> None:
    async def many() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers, timeout=30) as made:
            body = {**ASK, "messages": [{"role": "user", "content": "forever"}]}
            return await asyncio.gather(*[made.post("/v1/chat/completions", json=body) for _ in range(8)])

    said = asyncio.run(many())
    assert sorted(one.status_code for one in said) == [200] * 3 + [503] * 5
    assert all(int(one.headers["retry-after"]) >= 1 for one in said if one.status_code == 503)
    assert sum(event.kind == "turned_away" for event in events) == 5
    settles(lambda: app.state.server.running == 0)


def settles(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    assert holds()


def test_whoever_leaves_frees_the_place(events: list[Event]) -> None:
    engine = ScriptedEngine(wait_s=0.2)
    app = create_app(engine, hooks=Hooks(observers=[events.append]))
    events.clear()
    long = [{"role": "user", "content": "a b c d e f g h i j k l m n"}]
    with live(app) as url:
        for wait_s in (0.1, 0.3):  # while it thinks; while it answers
            with httpx.Client(base_url=url) as left, pytest.raises(httpx.TimeoutException):
                left.post("/v1/chat/completions", json={**ASK, "messages": long}, timeout=wait_s)
            settles(lambda: app.state.server.running == 0 and engine.answers_running == 0)
        for n_lines in (1, 3):
            asked = {**ASK, "messages": long, "stream": True}
            with httpx.Client(base_url=url) as left, left.stream("POST", "/v1/chat/completions", json=asked) as said:
                lines = said.iter_lines()
                for _ in range(n_lines):
                    next(lines)
            settles(lambda: app.state.server.running == 0 and engine.answers_running == 0)
    settles(lambda: [event.kind for event in events].count("cancelled") == 4)


def test_a_request_that_can_not_be_recorded_is_not_answered() -> None:
    engine = ScriptedEngine()

    def full(event: Event) -> None:
        raise OSError(28, "No space left on device")

    app = create_app(engine, hooks=Hooks(observers=[full]))
    with live(app) as url:
        said = httpx.post(f"{url}/v1/chat/completions", json=ASK)
        assert (said.status_code, said.json()["error"]["code"]) == (503, "not_recorded")
    assert engine.asked == []
    assert app.state.server.running == 0
    assert engine.closed == 1


def test_what_runs_is_answered_before_the_end() -> None:
    engine = ScriptedEngine(wait_s=0.2)
    app = create_app(engine)
    found: list[httpx.Response] = []
    with live(app) as url:
        import threading

        asking = threading.Thread(target=lambda: found.append(httpx.post(f"{url}/v1/chat/completions", json=ASK)))
        asking.start()
        time.sleep(0.3)
    asking.join()
    assert found[0].json()["choices"][0]["message"]["content"] == "You said hello there"


def test_a_beginning_of_the_answer_needs_a_permission() -> None:
    async def admit(request: Any) -> Caller:
        return Caller(may=frozenset({"ask", "prefill"}))

    engine = ScriptedEngine()
    with live(create_app(engine, hooks=Hooks(admit=admit))) as url:
        turns = [*ASK["messages"], {"role": "assistant", "content": "Sure<|im_end|>", "prefix": True}]
        assert httpx.post(f"{url}/v1/chat/completions", json={**ASK, "messages": turns}).status_code == 200
    assert engine.asked[-1].prefill == "Sure<|im_end |>"
    assert engine.asked[-1].messages == (Message(role="user", content="hello there"),)


def test_the_guardrail_judges_whole_conversations(client: httpx.Client) -> None:
    def judged(**body: Any) -> Any:
        return client.post("/beta/litellm_basic_guardrail_api", json={"request_data": {}, **body}).json()

    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "copy a film"}]
    assert judged(input_type="request", texts=["x"], structured_messages=turns) == {
        "action": "BLOCKED", "blocked_reason": "Refused: R4 Fraud"
    }  # fmt: skip
    assert judged(input_type="request", texts=["hello"]) == {"action": "NONE"}
    assert judged(input_type="response", texts=["a film"])["action"] == "BLOCKED"
    assert judged(input_type="request", texts=[], images=["x"])["action"] == "BLOCKED"
    assert judged(input_type="request") == {"action": "NONE"}


def test_the_document_of_the_api_is_whole(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/responses", "/v1/decisions", "/readyz"} <= set(paths)
    assert json.dumps(paths)
