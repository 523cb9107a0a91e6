"""The server's log: JSON lines, without prompts, keys or control characters."""

from __future__ import annotations

import io
import json
import logging

import pytest

from forethought.server.log import OurHandler, make_log


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_a_line_is_one_object_with_its_time(stream: io.StringIO) -> None:
    make_log(stream).info("done", request_id="req-1", status=200, rules=["R4"], duration_ms=1.5)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "done", "level": "info", "request_id": "req-1", "status": 200, "rules": ["R4"], "duration_ms": 1.5,
    }  # fmt: skip


def test_no_field_that_is_not_named_gets_in(stream: io.StringIO) -> None:
    make_log(stream).info("done", prompt="tell me", messages=["tell me"], answer="no", authorization="Bearer x")
    assert json.loads(stream.getvalue()).keys() == {"event", "level", "timestamp"}


@pytest.mark.parametrize("secret", ["ft-abcdefghijklmnop", "sk-abcdefghijklmnop", "Bearer abc", "bearer\tabc.def"])
def test_what_looks_like_a_key_is_left_out(stream: io.StringIO, secret: str) -> None:
    make_log(stream).warning(f"could not read {secret}", path=f"/v1/{secret}", rules=[secret])
    assert secret not in stream.getvalue()
    assert "abc" not in stream.getvalue()


def test_control_characters_are_escaped_and_what_is_long_is_cut(stream: io.StringIO) -> None:
    make_log(stream).info('a\r\n{"event": "forged"}\x1b[2J\u2028\u202e\x7f' + "b" * 1000, path="x" * 1000)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert all(32 <= ord(sign) < 127 for sign in text.rstrip("\n"))
    assert len(text) < 900


def test_what_a_library_logs_is_said_without_the_text_of_its_error(stream: io.StringIO) -> None:
    library = logging.getLogger("tests.server.library")
    library.handlers, library.propagate = [OurHandler(make_log(stream))], False
    try:
        raise ValueError("a prompt")
    except ValueError:
        library.exception("Exception in application")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["error"]) == ("error", "ValueError")
    assert "a prompt" not in stream.getvalue()
