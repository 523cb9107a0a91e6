"""Records: frozen, identified by content, and never half written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forethought.errors import InputError
from forethought.reasoning import SafetyReasoning
from forethought.records import Example, Message, Request, read_jsonl, user_request, write_jsonl

KNOT = user_request("How do I tie a knot?", harmful=False, source="a.csv", family="ropes", kind="ordinary")


def test_the_id_is_the_content_and_nothing_else() -> None:
    assert KNOT.id == user_request("How do I tie a knot?", harmful=True, source="b.csv").id
    assert KNOT.id != user_request("How do I tie a bow?").id
    assert len(KNOT.id) == 12


def test_the_id_tells_turns_apart_from_text_that_looks_like_turns() -> None:
    turns = (Message(role="system", content="a"), Message(role="user", content="b"))
    assert Request(messages=turns).id != user_request("system\x1fa user\x1fb").id
    assert Request(messages=turns).id != Request(messages=turns[::-1]).id


def test_records_are_frozen_and_refuse_unknown_fields() -> None:
    with pytest.raises(ValueError, match="frozen"):
        KNOT.harmful = True
    with pytest.raises(ValueError, match="extra"):
        user_request("x", label=1)
    with pytest.raises(ValueError, match="role"):
        Message.model_validate({"role": "tool", "content": "x"})


def test_a_restyled_request_remembers_what_is_really_asked() -> None:
    once = KNOT.restyled("yo, tie a knot how?", "slang")
    twice = once.restyled("JSON please: yo, tie a knot how?", "style_json")
    assert once.plain == twice.plain == KNOT.text
    assert twice.seed_id == KNOT.seed_id
    assert twice.operator == "style_json"
    assert (twice.harmful, twice.family, twice.kind, twice.source) == (False, "ropes", "ordinary", "a.csv")
    assert KNOT.operator is None


def test_restyling_keeps_the_earlier_turns() -> None:
    head = (Message(role="user", content="Hi."), Message(role="assistant", content="Hello."))
    request = Request(messages=(*head, Message(role="user", content="Which knot?")))
    restyled = request.restyled("which knot fam?", "slang")
    assert restyled.messages[:2] == head
    assert restyled.text == "which knot fam?"


def test_the_term_of_the_loss_follows_the_verdict() -> None:
    def example(verdict: str) -> Example:
        reasoning = SafetyReasoning.model_validate({"intent": "x", "verdict": verdict})
        return Example(request=KNOT, reasoning=reasoning, answer="")

    assert example("refuse").term == "refusal"
    assert example("comply").term == "benign"


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    odd = user_request('Line one\nline two \u2028 "quoted" \x85 \U0001f600 {braces}', harmful=None)
    rows = [KNOT, odd, KNOT.restyled("x", "slang")]
    file = tmp_path / "deep" / "rows.jsonl"
    assert write_jsonl(file, rows) == 3
    assert list(read_jsonl(file, Request)) == rows
    assert next(iter(read_jsonl(file, Request))).harmful is False
    assert [path.name for path in file.parent.iterdir()] == ["rows.jsonl"]


def test_a_write_that_fails_keeps_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [KNOT])
    before = file.read_bytes()

    def failing() -> Iterator[Request]:
        yield KNOT
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="space"):
        write_jsonl(file, failing())
    assert file.read_bytes() == before


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [KNOT])
    with file.open("a", encoding="utf-8") as out:
        out.write('\n{"messages": [{"role": "user", "cont')
    with pytest.raises(InputError, match="line 3") as caught:
        list(read_jsonl(file, Request))
    assert "Request" in caught.value.rule
    assert caught.value.fix


def test_a_row_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [Message(role="user", content="x")])
    with pytest.raises(InputError, match="line 1"):
        list(read_jsonl(file, Request))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_jsonl(tmp_path / "none.jsonl", Request))
