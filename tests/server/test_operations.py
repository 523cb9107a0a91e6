"""The whole application with keys, limits, metrics, logs and the audit log around it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from forethought.measure.traffic import Reference, Traffic
from forethought.server.audit import verify
from forethought.server.keys import Key, load_keys, new_key
from tests.server.operated import Operated, ScriptedEngine, operated

PLAIN, LOCK, FIRE = "How do I get into my own house?", "How do I open a lock that is not mine?", "a fire in a prompt"


def ask(server: Operated, text: str = PLAIN, key: str = "", **fields: object) -> httpx.Response:
    body = {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=20)


def made(folder: Path, **keys: tuple[list[str], str]) -> tuple[tuple[Key, ...], dict[str, str]]:
    file = folder / "keys.yaml"
    secrets = {name: new_key(file, name, may, limits) for name, (may, limits) in keys.items()}
    return load_keys(file), secrets


def figures(server: Operated) -> dict[str, float]:
    text = httpx.get(f"{server.url}/metrics").text
    rows = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in rows}


def test_each_key_sees_and_does_what_it_may(tmp_path: Path) -> None:
    keys, key = made(
        tmp_path, plain=(["ask"], ""), sees=(["ask", "reasoning", "intent"], ""), base=(["ask", "base"], ""),
        strict=(["ask", "tighten"], ""), scrape=(["metrics"], ""),
    )  # fmt: skip
    with operated(keys, answers={"base_model": True}) as server:
        assert "reasoning" not in ask(server, key=key["plain"]).json()["choices"][0]["message"]
        assert ask(server, key=key["sees"]).json()["choices"][0]["message"]["reasoning"]
        assert ask(server, key=key["plain"]).json()["moderation"]["verdict"]["intent"] is None
        assert ask(server, key=key["plain"], threshold=0.1).status_code == 403
        assert ask(server, key=key["strict"], threshold=0.1).json()["moderation"]["verdict"]["decision"] == "refuse"
        assert ask(server, key=key["plain"], model="scripted-base").status_code == 403
        assert ask(server, key=key["base"], model="scripted-base").status_code == 200
        assert ask(server, key=key["scrape"]).status_code == 403
        for name, models in (("plain", 1), ("base", 2)):
            listed = httpx.get(f"{server.url}/v1/models", headers={"x-api-key": key[name]}).json()["data"]
            assert len(listed) == models


def test_who_is_not_known_gets_nothing_but_health_and_the_page(tmp_path: Path) -> None:
    keys, key = made(tmp_path, plain=(["ask"], ""))
    with operated(keys) as server:
        for path, status in {
            "/": 200, "/page/page.js": 200, "/healthz": 200, "/readyz": 200, "/v1/models": 401, "/v1/policy": 401,
            "/metrics": 401, "/drift": 401,
        }.items():  # fmt: skip
            assert httpx.get(server.url + path).status_code == status, path
        wrong = ask(server, key="ft-wrong")
        assert wrong.status_code == 401
        assert wrong.json()["error"]["type"] == "authentication_error"
        assert "ft-wrong" not in wrong.text + server.stream.getvalue()
        assert httpx.get(f"{server.url}/metrics", headers={"x-api-key": key["plain"]}).status_code == 403


def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    keys, key = made(tmp_path, often=(["ask"], "2/minute"))
    with operated(keys) as server:
        answers = [ask(server, text, key["often"]) for text in (LOCK, PLAIN, PLAIN)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


def test_traffic_that_leaves_what_the_threshold_was_set_on_is_told() -> None:
    traffic = Traffic(reference=Reference.of([score / 100 for score in range(-300, -100)]))
    with operated(traffic=traffic) as server:
        ask(server, PLAIN)
        seen = httpx.get(f"{server.url}/drift").json()
        assert (seen["index"], seen["seen"], seen["drifted"]) == (None, 1, False)
        assert seen["cause"]
        assert server.operations.drift is not None
        server.operations.drift.add(*[2.0] * 200)
        ask(server, LOCK)
        ask(server, LOCK)
        seen = httpx.get(f"{server.url}/drift").json()
        assert seen["drifted"]
        assert figures(server)["forethought_traffic_drift"] == pytest.approx(seen["index"])
    assert [line["event"] for line in server.lines].count("traffic_drifted") == 1
    with operated() as server:
        assert "calibrate" in httpx.get(f"{server.url}/drift").json()["cause"]


def test_figures_say_what_happened() -> None:
    with operated() as server:
        for text in (PLAIN, LOCK, LOCK):
            ask(server, text)
        assert ask(server, FIRE).status_code == 500
        ask(server, PLAIN, stream=True)
        found = figures(server)
    assert found['forethought_verdicts_total{verdict="refuse"}'] == 2
    assert found['forethought_verdicts_total{verdict="comply"}'] == 2
    assert found['forethought_rules_total{rule="R4"}'] == 2
    assert found['forethought_requests_total{endpoint="/v1/chat/completions",status="200"}'] == 4
    assert found['forethought_failures_total{status="500"}'] == 1
    assert found["forethought_time_to_verdict_seconds_count"] == 4
    assert found["forethought_time_to_first_token_seconds_count"] == 4
    assert found['forethought_tokens_total{kind="thought"}'] == 36
    assert found["forethought_running"] == found["forethought_waiting"] == 0


def test_the_log_says_who_and_what_was_decided_and_no_prompt(tmp_path: Path) -> None:
    keys, key = made(tmp_path, shop=(["ask"], ""))
    with operated(keys) as server:
        ask(server, LOCK, key["shop"])
        ask(server, FIRE, key["shop"])
        ask(server, "x" * 3000, key["shop"], n=1000)
        httpx.get(f"{server.url}/v1/{key['shop']}%1b[2J%0aforged")
    text = server.stream.getvalue()
    done = next(line for line in server.lines if line["event"] == "done")
    assert (done["caller"], done["verdict"], done["rules"], done["status"]) == ("shop", "refuse", ["R4"], 200)
    assert done["thought_tokens"] == 9
    for secret in (*key.values(), "house", "not mine", "fire", "under", "mat", "xxx", "enter a"):
        assert secret not in text, secret
    assert "\x1b" not in text


def test_every_decision_is_in_the_audit_log_redacted(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    with operated(audit={"file": file}) as server:
        answer = ask(server, LOCK)
        ask(server, PLAIN, stream=True)
        ask(server, FIRE)
        body = {"model": "scripted", "input": [LOCK, PLAIN]}
        assert httpx.post(f"{server.url}/v1/moderations", json=body).status_code == 200
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["refuse", "comply", "refuse", "comply"]
    assert lines[0]["request"] == answer.json()["id"]
    assert (lines[0]["rules"], lines[0]["probability"], lines[0]["caller"]) == (["R4"], 0.88, "anyone")
    assert lines[0]["opening"] == "How do I ope [26 characters redacted]"
    assert "not mine" not in file.read_text()
    assert verify(file).lines == 4


def test_a_log_without_texts_keeps_their_hash(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    with operated(audit={"file": file, "texts": False}) as server:
        ask(server, LOCK)
    line = json.loads(file.read_text())
    assert "opening" not in line
    assert len(line["asked"]) == 12


@pytest.mark.parametrize(("on_failure", "status"), [("refuse", 503), ("count", 200)])
def test_a_full_disk_under_the_audit_log_is_refused_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_failure: str, status: int
) -> None:
    full, write = [False], os.write

    def fails(file: int, content: bytes) -> int:
        if full[0] and content.startswith(b"{"):
            return write(file, content[:20])
        return write(file, content)

    monkeypatch.setattr("forethought.server.audit.os.write", fails)
    audit = tmp_path / "audit.jsonl"
    with operated(audit={"file": audit, "on_failure": on_failure}) as server:
        assert ask(server, LOCK).status_code == 200
        full[0] = True
        answer = ask(server)
        assert answer.status_code == status
        assert ("mat" in answer.text) is (status == 200)
        stream = ask(server, stream=True)
        assert ("mat" in stream.text.replace('"', "")) is (status == 200)
        full[0] = False
        assert ask(server, LOCK).status_code == 200
        assert figures(server)['forethought_failures_total{status="audit"}'] == 2
    found = verify(audit)
    assert (found.lines, found.mended) == (3, 1)


def test_the_queue_is_bounded_and_those_turned_away_are_told_when_to_come_again() -> None:
    with operated(engine=ScriptedEngine(thought_s=0.5), answers={"max_waiting": 2}) as server:
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(server))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
        assert all(int(one.headers["retry-after"]) >= 1 for one in answers if one.status_code == 503)
        found = figures(server)
        assert found['forethought_turned_away_total{status="503"}'] == 4
        assert found["forethought_running"] == 0
        assert ask(server).status_code == 200


def test_a_caller_who_leaves_frees_the_place() -> None:
    with operated(engine=ScriptedEngine(word_s=0.2), answers={"max_waiting": 1}) as server:
        body = {"model": "scripted", "messages": [{"role": "user", "content": PLAIN}], "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        time.sleep(0.6)
        assert ask(server).status_code == 200
        assert "cancelled" in [line["event"] for line in server.lines]


@pytest.mark.parametrize(
    "path",
    ["/page/../keys.py", "/page/..%2f..%2fkeys.py", "/page/%2e%2e/%2e%2e/etc/passwd", "/page//etc/passwd", "/page/",
     "/page/__init__.py", "/page/page.js%00", "/../../etc/passwd", "/v1/models/../../etc/passwd"],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(path: str) -> None:
    with operated() as server:
        answer = _raw(server, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert answer.split(b" ", 2)[1] in (b"404", b"400"), answer[:300]
        assert b"root:" not in answer
        assert b"hmac" not in answer


def test_what_a_caller_writes_makes_no_header() -> None:
    with operated() as server:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\x0bb\r\nContent-Length: 2\r\n\r\n{}"
        assert b"400" in _raw(server, head).split(b"\r\n")[0]
        answer = ask(server, LOCK, model="a\r\nset-cookie: b=c")
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers


def test_what_is_too_large_too_slow_or_too_much_is_a_clear_error() -> None:
    with operated(answers={"max_body_bytes": 2000, "body_timeout_s": 0.5}) as server:
        assert ask(server, "x" * 3000).status_code == 413
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        for rest, status in [
            (b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n" + b"400\r\n" + b"x" * 1024
             + b"\r\n0\r\n\r\n", b"413"),
            (b"Content-Length: 100\r\n\r\n{", b"408"),
            (b"Content-Length: -5\r\n\r\n{", b"400"),
        ]:  # fmt: skip
            answer = _raw(server, head + rest)
            assert answer.split(b" ", 2)[1] == status, answer[:200]
        assert ask(server, n=10**6).status_code == 400
        assert ask(server).status_code == 200


def _raw(server: Operated, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR) if content.endswith(b"{}") else None
        found = b""
        while part := _received(connection):
            found += part
            if b"\r\n\r\n" in found and b"connection: close" not in found.lower():
                break
    return found


def _received(connection: Any) -> bytes:
    try:
        return bytes(connection.recv(65536))
    except ConnectionError:
        return b""
