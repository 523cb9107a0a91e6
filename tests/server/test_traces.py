"""Traces go to a collector where one is configured, and hold no text."""

from __future__ import annotations

import builtins
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from forethought.errors import ConfigError
from forethought.server.traces import Traces
from tests.server.operated import operated

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_request_is_a_span_below_its_callers_and_says_what_was_decided() -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    with operated(traces=f"http://127.0.0.1:{collector.server_port}") as server:
        for stream in (False, True):
            httpx.post(
                f"{server.url}/v1/chat/completions",
                json={"model": "scripted", "messages": [{"role": "user", "content": "a lock"}], "stream": stream},
                headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
            )
    collector.shutdown()
    collector.server_close()
    assert received
    assert not any(b"a lock" in content or b"can't help" in content for content in received)
    spans = [
        span
        for content in received
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name == "POST /v1/chat/completions"
    ]
    assert len(spans) == 2
    for span in spans:
        held = {one.key: one.value for one in span.attributes}
        assert span.trace_id.hex() == TRACE
        assert held["forethought.verdict"].string_value == "refuse"
        assert held["forethought.rules"].array_value.values[0].string_value == "R4"
        assert held["http.response.status_code"].int_value == 200


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    Traces("").close()
    with pytest.raises(ConfigError, match=r"pip install 'forethought\[traces\]'"):
        Traces("http://127.0.0.1:4318")
