"""What a record says of the command that made it."""

from __future__ import annotations

import sys

import pytest

from forethought.manifest import this_command, without_place


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/home/somebody/runs/mine", "mine"),
        ("gsm8k=/data/sets/test.jsonl", "gsm8k=test.jsonl"),
        ("probe:/home/somebody/runs/probe,format=think", "probe:probe,format=think"),
        ("/home/some body/runs/mine", "mine"),
        ("refusal | probe:/srv/a probe/one", "refusal | probe:one"),
        ("runs/mine", "runs/mine"),
        ("../shared/set.csv", "../shared/set.csv"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("either/or", "either/or"),
        ("/", "/"),
    ],
)
def test_of_a_path_from_the_root_the_last_part_is_told(word: str, shown: str) -> None:
    assert without_place(word) == shown


def test_a_command_is_told_as_it_was_typed_but_for_where_things_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/forethought", "attack", "/srv/models/a model", "--limit", "5"])
    assert this_command() == "forethought attack 'a model' --limit 5"
