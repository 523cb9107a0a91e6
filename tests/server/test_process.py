"""The process as it is started: told what is wrong, stopped while it answers, killed while it keeps its log."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from forethought.server.audit import AuditLog, verify
from forethought.server.keys import load_keys
from tests.child import command
from tests.shell import run_here
from tests.tiny import tiny_adapter


class Process:
    """`forethought serve` in a process of its own, and the lines that it logs."""

    def __init__(self, *arguments: object) -> None:
        self._said = Path(tempfile.mkdtemp()) / "said"
        os.mkfifo(self._said)
        self.process = command("serve", *arguments, "--port", 0, err=self._said)
        self.lines: list[str] = []
        self._started = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        while not self._started.wait(0.2):
            assert self.process.poll() is None, self.lines
        address = next(found for line in self.lines if (found := re.search(r"http://[\d.]+:\d+", line)))
        self.url = address.group()

    def _read(self) -> None:
        with self._said.open(encoding="utf-8") as said:
            for line in said:
                self.lines.append(line)
                if "running on" in line:
                    self._started.set()

    def ask(self, text: str = "How do I bake bread?", **fields: object) -> httpx.Response:
        model = httpx.get(f"{self.url}/v1/models").json()["data"][0]["id"]
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and a configuration with an audit log."""
    tiny_adapter(tmp_path / "model", think_budget=6)
    (tmp_path / "serve.yaml").write_text("audit: {file: log/audit.jsonl}\nanswers: {fail_closed: false}\n")
    return tmp_path


@pytest.mark.slow
def test_it_serves_and_when_told_to_stop_answers_what_it_has_begun(folder: Path) -> None:
    server = Process(folder / "model", "--config", folder / "serve.yaml")
    assert server.ask().status_code == 200
    answers: list[httpx.Response] = []
    begun = threading.Thread(target=lambda: answers.append(server.ask(max_tokens=300)))
    begun.start()
    threading.Event().wait(0.3)
    server.process.terminate()
    begun.join()
    assert server.process.wait(60) in (0, -signal.SIGTERM)
    assert answers[0].status_code == 200
    assert answers[0].json()["choices"][0]["finish_reason"] in ("stop", "length")
    assert verify(folder / "log" / "audit.jsonl").lines == 2
    events = [json.loads(line)["event"] for line in server.lines]
    assert "stopping" in events
    assert "bake" not in "".join(server.lines)


@pytest.mark.slow
def test_killed_while_it_answers_its_audit_log_is_whole(folder: Path) -> None:
    for _ in range(2):
        server = Process(folder / "model", "--config", folder / "serve.yaml")
        answered = [server.ask(max_tokens=4).status_code for _ in range(3)]
        threads = [threading.Thread(target=_try, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.2)
        server.process.kill()
        for thread in threads:
            thread.join()
        assert answered == [200] * 3
    log = folder / "log" / "audit.jsonl"
    AuditLog(log).close()
    assert verify(log).lines >= 6


def _try(server: Process) -> Any:
    try:
        return server.ask(max_tokens=300)
    except httpx.HTTPError:
        return None


@pytest.mark.slow
def test_an_address_that_is_taken_is_told(folder: Path) -> None:
    server = Process(folder / "model")
    try:
        found = run_here("serve", folder / "model", "--port", server.url.rpartition(":")[2])
    finally:
        server.process.kill()
    assert found.code == 2
    assert "Give another port" in found.err


def test_keys_are_made_configurations_checked_and_logs_verified_by_the_command(tmp_path: Path) -> None:
    keys, config, log = tmp_path / "keys.yaml", tmp_path / "serve.yaml", tmp_path / "audit.jsonl"
    made = run_here("serve", "--new-key", "ask, reasoning", "--name", "shop", "--keys", keys)
    assert made.code == 0
    assert made.out.splitlines()[0].startswith("ft-")
    assert load_keys(keys)[0].may == ("ask", "reasoning")
    config.write_text("model: embedded\nhost: 0.0.0.0\n")
    wrong = run_here("serve", "--config", config, "--check")
    assert (wrong.code, "Name a key file" in wrong.err) == (2, True)
    right = run_here("serve", "--config", config, "--check", "--keys", keys)
    assert (right.code, "nothing is wrong" in right.out + right.err) == (0, True)
    AuditLog(log).close()
    audit = AuditLog(log)
    audit.add("decision")
    audit.close()
    whole = run_here("serve", "--verify-audit", log)
    assert (whole.code, verify(log).head in whole.out + whole.err) == (0, True)
    log.write_text(log.read_text().replace("decision", "decisiom"))
    assert run_here("serve", "--verify-audit", log).code == 2
