"""Conversations whose turns call things otherwise: what is advised reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forethought.data.readers import read_rows
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import InputError
from forethought.records import Request

ASK, SAY = "How do I tie a bowline knot?", "Make a loop, and go on from there."
FORMS: dict[str, Any] = {
    "keys": [{"who": "customer", "says": ASK}, {"who": "agent", "says": SAY}],
    "speakers": [{"role": "customer", "content": ASK}, {"role": "agent", "content": SAY}],
    "nested": [{"by": {"kind": "Q"}, "said": {"plain": ASK}}, {"by": {"kind": "A"}, "said": {"plain": SAY}}],
}


def _read(folder: Path, turns: Any, columns: dict[str, str]) -> list[Request]:
    file = folder / "talk.jsonl"
    file.write_text("".join(json.dumps({"nr": n, "log": {"turns": turns}}) + "\n" for n in range(3)), encoding="utf-8")
    return list(load_requests(SourceSpec(path=str(file), columns=columns), True))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_advised_reads_the_conversation(tmp_path: Path, form: str) -> None:
    """`--text-column NAME` was advised, and failed for every column there is."""
    with pytest.raises(InputError) as caught:
        _read(tmp_path, FORMS[form], {})
    said = caught.value.fix.split("--column ")[1:]
    assert said, caught.value.fix
    columns = dict(one.strip(" ,").split(" ")[0].rstrip(",").split("=") for one in said)
    if form == "speakers":  # one word at a time: the speaker that is met first
        columns |= {"assistant": "agent"}
    rows = _read(tmp_path, FORMS[form], columns)
    assert [(row.text, row.answer) for row in rows] == [(ASK, SAY)] * 3


def test_where_no_text_stands_none_is_advised(tmp_path: Path) -> None:
    file = tmp_path / "numbers.jsonl"
    file.write_text('{"a": 1, "b": [2, 3]}\n{"a": 2, "b": [4]}\n', encoding="utf-8")
    with pytest.raises(InputError, match="no column reads like requests") as caught:
        list(load_requests(SourceSpec(path=str(file)), True))
    assert "--text-column" not in caught.value.fix


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_no_source(name: str) -> None:
    """It was read as the folder that one stands in."""
    with pytest.raises(InputError, match="is no source"):
        list(read_rows(name))
