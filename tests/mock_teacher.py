"""An OpenAI-compatible chat server on the loopback interface: a scripted teacher for tests and benchmarks.

python -m tests.mock_teacher --seconds 1     # prints its address, serves until killed
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server says to one call."""

    text: str = ""
    status: int = 200
    seconds: float = 0.0
    """How long it takes."""
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[list[dict[str, str]], int], Reply]
"""(messages, number of the call from 0) to a reply."""


def good_lesson(messages: list[dict[str, str]], **changes: Any) -> str:
    """The answer of a teacher that does all it is told, as JSON; `changes` replace fields."""
    prompt = next(message["content"] for message in messages if message["role"] == "user")
    harmful = prompt.startswith("Label: harmful")
    known = re.search(r"Rules it is known to break: (\w+)", prompt)
    rule = known[1] if known else "R4"
    text = (re.findall(r"(?s)<request>\n(.*?)\n</request>", prompt) or [prompt])[-1]
    topic = " ".join(re.findall(r"\w+", text)[:5]).lower()
    styles = re.findall(r"(?m)^- (\w+): ", prompt)
    lesson: dict[str, Any] = {
        "intent": f"learn about {topic}",
        "findings": [{"rule": rule, "reason": f"it would help someone with {topic}"}] if harmful else [],
        "verdict": "refuse" if harmful else "comply",
        "refusal": f"I can't help with {topic}. I'm glad to talk about what the law says and who can help instead."
        if harmful
        else "",
        "variants": [{"operator": style, "text": f"In the manner of {style}, please: {text}"} for style in styles],
        "twin": f"How do museums explain {topic}?" if harmful and "Write a twin." in prompt else "",
    }
    return json.dumps(lesson | changes)


class MockTeacher:
    """The server, running in threads of this process. A context manager."""

    def __init__(self, script: Script | None = None, port: int = 0) -> None:
        """`script` None answers every call well at once."""
        self.script: Script = script or (lambda messages, number: Reply(good_lesson(messages)))
        self.bodies: list[dict[str, Any]] = []
        """Every call's body, in the order in which they came."""
        self.answered: Counter[str] = Counter()
        """Calls that got a whole 200 answer, by their conversation."""
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"teacher": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """The base URL to give to a client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> MockTeacher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    teacher: MockTeacher
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        teacher = self.teacher
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with teacher.lock:
            number = len(teacher.bodies)
            teacher.bodies.append(body)
            teacher.running += 1
            teacher.most_running = max(teacher.most_running, teacher.running)
        try:
            reply = teacher.script(body["messages"], number)
            time.sleep(reply.seconds)
        finally:
            with teacher.lock:
                teacher.running -= 1
        if reply.status == 200:
            with teacher.lock:
                teacher.answered[json.dumps(body["messages"])] += 1
            self._send(200, _completion(body, reply.text), reply.headers)
        else:
            self._send(reply.status, {"error": {"message": f"scripted {reply.status}", "code": None}}, reply.headers)

    def do_GET(self) -> None:
        with self.teacher.lock:
            counts = {
                "calls": len(self.teacher.bodies),
                "distinct": len({json.dumps(body["messages"]) for body in self.teacher.bodies}),
                "most_running": self.teacher.most_running,
            }
        self._send(200, {"object": "list", "data": [], **counts}, {})

    def _send(self, status: int, payload: dict[str, Any], headers: dict[str, str]) -> None:
        content = json.dumps(payload).encode()
        try:
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # the client is gone: killed, or tired of waiting

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    asked = sum(len(message["content"]) for message in body["messages"]) // 4
    return {
        "id": "mock",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": len(text) // 4,
            "total_tokens": asked + len(text) // 4,
        },
    }


@contextmanager
def server_process(seconds: float) -> Iterator[str]:
    """The server in a process of its own, each answer in `seconds`; gives its base URL."""
    command = [sys.executable, "-m", "tests.mock_teacher", "--seconds", str(seconds)]
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def counts_of(url: str) -> dict[str, int]:
    """What a server counted: `calls`, `distinct` conversations, `most_running` at once."""
    with urllib.request.urlopen(f"{url}/models") as response:
        counts = json.load(response)
    return {name: counts[name] for name in ("calls", "distinct", "most_running")}


def main() -> None:
    """Serves good lessons until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0.0)
    seconds = parser.parse_args().seconds
    with MockTeacher(lambda messages, number: Reply(good_lesson(messages), seconds=seconds)) as teacher:
        print(teacher.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
