"""Every shape of file in which such sets are published, written here by hand and read back."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forethought.data import json_files
from forethought.data.files import Row
from forethought.data.readers import read_rows
from forethought.errors import InputError

Write = Callable[[str, str | bytes], Path]
KNOT, BOW = "How do I tie a knot?", "How do I tie a bow?"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(name: str, content: str | bytes) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return to_file


def _rows(spec: Path | str) -> list[Row]:
    return [row for _, row in read_rows(str(spec))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,topic\nHow do I tie a knot?,ropes\n"),
        ("crlf.csv", "prompt,topic\r\nHow do I tie a knot?,ropes\r\n"),
        ("tab.tsv", "prompt\ttopic\nHow do I tie a knot?\tropes\n"),
        ("TAB.TSV", "prompt\ttopic\nHow do I tie a knot?\tropes\n"),
        ("tab.csv", "prompt\ttopic\nHow do I tie a knot?\tropes\n"),
        ("semicolon.csv", "prompt;topic\nHow do I tie a knot?;ropes\n"),
        ("bar.csv", "prompt|topic\nHow do I tie a knot?|ropes\n"),
        ("bom.csv", codecs.BOM_UTF8 + b"prompt,topic\nHow do I tie a knot?,ropes\n"),
        ("utf16.csv", "prompt,topic\nHow do I tie a knot?,ropes\n".encode("utf-16")),
        ("comment.csv", "# dataset_version: 1.0\nprompt,topic\nHow do I tie a knot?,ropes\n"),
        ("comments.csv", "# one\n# two: 3, 4\n# three\nprompt,topic\nHow do I tie a knot?,ropes\n"),
        ("comma_in_comment.csv", "# version: 1, revision 2\nprompt,topic\nHow do I tie a knot?,ropes\n"),
        ("a.jsonl", '{"prompt": "How do I tie a knot?", "topic": "ropes"}\n\n'),
        ("a.ndjson", '{"prompt": "How do I tie a knot?", "topic": "ropes"}'),
        ("lines.json", '{"prompt": "How do I tie a knot?", "topic": "ropes"}\n'),
        ("a.json", '[{"prompt": "How do I tie a knot?", "topic": "ropes"}]'),
        ("bom.json", codecs.BOM_UTF8 + b'[{"prompt": "How do I tie a knot?", "topic": "ropes"}]'),
        ("wrapped.json", '{"version": 2, "rows": [{"prompt": "How do I tie a knot?", "topic": "ropes"}]}'),
        ("one.json", '{"prompt": "How do I tie a knot?", "topic": "ropes"}'),
    ],
)
def test_one_row_in_every_shape(write: Write, name: str, content: str | bytes) -> None:
    assert _rows(write(name, content)) == [{"prompt": KNOT, "topic": "ropes"}]


def test_json_lines_of_several_rows_under_the_name_json(write: Write) -> None:
    assert _rows(write("a.json", '{"prompt": "a"}\n{"prompt": "b"}\n')) == [{"prompt": "a"}, {"prompt": "b"}]


def test_a_header_that_begins_with_a_hash_is_no_comment(write: Write) -> None:
    assert _rows(write("a.csv", "#,prompt\n1,How do I tie a knot?\n")) == [{"#": "1", "prompt": KNOT}]


def test_quoted_newlines_and_delimiters_stay_in_their_cell(write: Write) -> None:
    file = write("a.csv", 'prompt,topic\n"Tie, say,\n\ta ""bow"";\r\nplease",ropes\n')
    assert _rows(file) == [{"prompt": 'Tie, say,\n\ta "bow";\r\nplease', "topic": "ropes"}]


def test_commas_of_an_unquoted_single_column_belong_to_the_text(write: Write) -> None:
    file = write("a.csv", "prompt\nHow do I tie a knot, a bow, or both?\nHow?\n")
    assert _rows(file) == [{"prompt": "How do I tie a knot, a bow, or both?"}, {"prompt": "How?"}]


def test_quotes_of_a_single_column(write: Write) -> None:
    """A quoted cell may hold commas, line ends and quotes; a quote that opens no cell is part of the text."""
    file = write("a.csv", 'prompt\n"Tie, say,\na ""bow"""\n"Bow" or "knot", which?\n"Never closed, is it?\nLast one?\n')
    assert [row["prompt"] for row in _rows(file)] == [
        'Tie, say,\na "bow"', '"Bow" or "knot", which?', '"Never closed, is it?', "Last one?",
    ]  # fmt: skip


def test_a_quoted_header_may_hold_delimiters(write: Write) -> None:
    assert _rows(write("a.csv", '"what, where";topic\nHow do I tie?;ropes\n')) == [
        {"what, where": "How do I tie?", "topic": "ropes"}
    ]


def test_a_table_without_a_header_loses_no_row(write: Write) -> None:
    assert _rows(write("a.csv", f"{KNOT}\n{BOW}\n")) == [{"text": KNOT}, {"text": BOW}]
    assert _rows(write("b.csv", f"{KNOT},ropes\n{BOW},ribbons\n")) == [
        {"column_1": KNOT, "column_2": "ropes"},
        {"column_1": BOW, "column_2": "ribbons"},
    ]


def test_a_spreadsheets_note_on_the_delimiter_is_no_header(write: Write) -> None:
    assert _rows(write("a.csv", "sep=|\nprompt|topic\nHow, then?|ropes\n")) == [
        {"prompt": "How, then?", "topic": "ropes"}
    ]


def test_short_rows_are_filled_and_empty_spare_cells_dropped(write: Write) -> None:
    assert _rows(write("a.csv", "prompt,topic\nHow?\nWhy?,ropes,,\n\n")) == [
        {"prompt": "How?", "topic": None},
        {"prompt": "Why?", "topic": "ropes"},
    ]


@pytest.mark.parametrize(("bad", "fault"), [("How?,ropes,and more", "3 cells for 2"), ('"How?,ropes', "never closed")])
def test_a_malformed_row_of_a_table_costs_itself_alone(write: Write, bad: str, fault: str) -> None:
    file = write("a.csv", f"prompt,topic\nfirst,1\n{bad}\nsecond,2\nthird,3\n")
    with pytest.raises(InputError, match=f"line 3: .*{fault}"):
        _rows(file)
    skipped: list[InputError] = []
    assert [row["prompt"] for _, row in read_rows(str(file), skipped.append)] == ["first", "second", "third"]
    assert len(skipped) == 1


def test_latin_1_is_read_where_utf_8_does_not_decode(write: Write) -> None:
    assert _rows(write("a.csv", "prompt,n\nWhere is the caf\u00e9?,1\n".encode("latin-1")))[0]["prompt"].endswith(
        "caf\u00e9?"
    )


def test_utf_8_is_not_doubted_where_the_probe_cuts_a_character(write: Write) -> None:
    text = "a" * ((1 << 20) - 1) + "\u00e9\nB\u00e9\n"
    assert [row["text"][-2:] for row in _rows(write("a.txt", text))] == ["a\u00e9", "B\u00e9"]


def test_smart_quotes_of_a_western_file_are_found_however_late(write: Write) -> None:
    text = "a" * (1 << 20) + "\nthe \u201cbowline\u201d\n"
    assert _rows(write("a.txt", text.encode("cp1252")))[1] == {"text": "the \u201cbowline\u201d"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl", "a.json"])
def test_two_byte_encodings_with_and_without_a_mark(write: Write, name: str, encoding: str) -> None:
    if encoding == "utf-32" and name == "a.txt":
        return
    row = json.dumps({"text": KNOT})
    content = {"a.csv": f"text\n{KNOT}\n", "a.txt": KNOT, "a.jsonl": row, "a.json": f"[{row}]"}[name]
    assert _rows(write(name, content.encode(encoding))) == [{"text": KNOT}]


@pytest.mark.parametrize(
    ("name", "sound", "broken"),
    [
        ("a.txt", "Where is the caf\u00e9?\n", b"caf\xe9\n"),
        ("a.jsonl", '{"text": "Where is the caf\u00e9?"}\n', b'{"text": "caf\xe9"}\n'),
        ("a.csv", "text,n\nWhere is the caf\u00e9?,1\n", b"caf\xe9,2\n"),
        ("b.csv", "text\nWhere is the caf\u00e9?\n", b"caf\xe9\n"),
    ],
)
def test_a_damaged_line_of_a_utf_8_file_is_named_and_can_be_skipped(
    write: Write, name: str, sound: str, broken: bytes
) -> None:
    lines = sound.splitlines(keepends=True)
    file = write(name, sound.encode() + broken + lines[-1].encode())
    with pytest.raises(InputError, match=f"line {len(lines) + 1}: is not UTF-8"):
        _rows(file)
    bad: list[InputError] = []
    assert len([row for _, row in read_rows(str(file), bad.append)]) == 2
    assert len(bad) == 1


def test_bytes_that_are_no_text_are_an_error(write: Write) -> None:
    for name, content in (("a.csv", b"PK\x03\x04\x00\x00\x00\x08"), ("a.txt", b"\x81\x8d\xff question\n")):
        with pytest.raises(InputError, match=r"is not text|is neither UTF-8"):
            _rows(write(name, content))


def test_plain_lines(write: Write) -> None:
    assert _rows(write("a.txt", f"{KNOT}\r\n\n  {BOW}")) == [{"text": KNOT}, {"text": BOW}]


def test_a_list_of_strings(write: Write) -> None:
    assert _rows(write("a.json", json.dumps([KNOT, BOW]))) == [{"text": KNOT}, {"text": BOW}]


def test_strings_as_json_lines(write: Write) -> None:
    assert _rows(write("a.jsonl", json.dumps(KNOT) + "\n")) == [{"text": KNOT}]


def test_nesting_becomes_the_category(write: Write) -> None:
    nested = {"Ropes": {"knots": [KNOT], "bows": [BOW]}, "Sails": {"jib": [{"prompt": "How do I furl?"}]}}
    assert _rows(write("a.json", json.dumps(nested))) == [
        {"text": KNOT, "category": ["Ropes", "knots"]},
        {"text": BOW, "category": ["Ropes", "bows"]},
        {"prompt": "How do I furl?", "category": ["Sails", "jib"]},
    ]


def test_a_rows_own_category_wins_over_the_nesting(write: Write) -> None:
    assert _rows(write("a.json", '{"x": [{"prompt": "How?", "category": "own"}]}'))[0]["category"] == "own"


def test_a_table_written_column_by_column(write: Write) -> None:
    table = {"prompt": [KNOT, BOW], "topic": ["ropes", "ribbons"]}
    assert _rows(write("a.json", json.dumps(table))) == [
        {"prompt": KNOT, "topic": "ropes"},
        {"prompt": BOW, "topic": "ribbons"},
    ]


@pytest.mark.parametrize(
    "turn", [{"role": "user", "content": KNOT}, {"from": "human", "value": KNOT}], ids=["openai", "sharegpt"]
)
def test_a_row_that_is_a_conversation_alone_stays_a_row(write: Write, turn: dict[str, str]) -> None:
    """Its turns are no branch of a tree: each would become a request of its own."""
    rows = [{"conversations": [turn]}]
    assert _rows(write("a.json", json.dumps(rows))) == rows
    assert _rows(write("b.json", json.dumps(rows[0]))) == rows


WORDY = [f"How do I tie knot number {n}?" for n in range(3)]
SHAPES: dict[str, tuple[Any, list[Row]]] = {
    "wrapped twice": ({"data": {"train": [{"prompt": KNOT}]}}, [{"prompt": KNOT}]),
    "wrapped texts": ({"version": 1, "prompts": WORDY}, [{"text": text} for text in WORDY]),
    "splits": ({"train": [{"prompt": KNOT}], "test_set": [{"prompt": BOW}]}, [{"prompt": KNOT}, {"prompt": BOW}]),
    "beside metadata": (
        {"schema": {"fields": [{"name": "prompt"}]}, "data": [{"prompt": KNOT, "n": 1}]},
        [{"prompt": KNOT, "n": 1}],
    ),
    "viewer": (
        {"features": [{"name": "prompt"}], "rows": [{"row_idx": 0, "row": {"prompt": KNOT}}], "num_rows_total": 1},
        [{"row_idx": 0, "row": {"prompt": KNOT}}],
    ),
    "tree in a wrapper": (
        {"data": {"Ropes": {"knots": [KNOT]}}, "license": "MIT"},
        [{"text": KNOT, "category": ["Ropes", "knots"]}],
    ),
    "a lone table of trees": (
        {"made_by": "us", "harm_list": [{"Fraud": [KNOT]}]}, [{"text": KNOT, "category": ["Fraud"]}]),
    "tags beside the rows": ({"tags": ["x", "yz"], "data": [{"prompt": KNOT}]}, [{"prompt": KNOT}]),
    "tables by category": (
        {"Fraud": {"ask": [KNOT, BOW], "n": [1, 2]}},
        [{"ask": KNOT, "n": 1, "category": ["Fraud"]}, {"ask": BOW, "n": 2, "category": ["Fraud"]}],
    ),
    "rows by id": ({"a1": {"prompt": KNOT, "n": 1}, "a2": {"prompt": BOW, "n": 2}}, [
        {"prompt": KNOT, "n": 1}, {"prompt": BOW, "n": 2}]),
    "rows by id in categories": (
        {"Ropes": {"a1": {"prompt": KNOT, "n": 1}}, "Bows": {"b1": {"prompt": BOW, "n": 2}}},
        [{"prompt": KNOT, "n": 1, "category": ["Ropes"]}, {"prompt": BOW, "n": 2, "category": ["Bows"]}],
    ),
    "texts by id": ({f"q{n}": text for n, text in enumerate(WORDY)}, [{"text": text} for text in WORDY]),
    "answers by question": ({KNOT: "Make a loop.", BOW: "Make two."}, [
        {"question": KNOT, "response": "Make a loop."}, {"question": BOW, "response": "Make two."}]),
    "columns": ({"ask": WORDY, "grade": [1, 2, 3]}, [{"ask": t, "grade": n} for n, t in enumerate(WORDY, start=1)]),
    "columns of words": ({"ask": WORDY, "grade": ["low", "low", "high"]}, [
        {"ask": t, "grade": g} for t, g in zip(WORDY, ["low", "low", "high"], strict=True)]),
    "column to index to value": (
        {"ask": {"0": KNOT, "1": BOW}, "grade": {"0": 1, "1": 2}},
        [{"ask": KNOT, "grade": 1}, {"ask": BOW, "grade": 2}]),
    "columns beside cells": (
        {"columns": ["ask", "grade"], "index": [0, 1], "data": [[KNOT, 1], [BOW, 2]]},
        [{"ask": KNOT, "grade": 1}, {"ask": BOW, "grade": 2}],
    ),
    "cells with a header": ([["prompt", "topic"], [KNOT, "ropes"], [BOW, "bows"]], [
        {"prompt": KNOT, "topic": "ropes"}, {"prompt": BOW, "topic": "bows"}]),
    "cells without a header": ([[KNOT, "ropes"], [BOW, "bows"]], [
        {"column_1": KNOT, "column_2": "ropes"}, {"column_1": BOW, "column_2": "bows"}]),
    "groups": ([[KNOT, BOW], [WORDY[0]]], [{"text": KNOT}, {"text": BOW}, {"text": WORDY[0]}]),
    "labels as keys": (
        {"harmful": [KNOT], "safe_prompts": [BOW]},
        [{"text": KNOT, "label": "harmful"}, {"text": BOW, "label": "harmless"}],
    ),
    "a category named beside a label": (
        {"unsafe": {"Fraud": [KNOT]}}, [{"text": KNOT, "category": ["Fraud"], "label": "harmful"}]),
    "conversations": ([[{"role": "user", "content": KNOT}], [{"role": "user", "content": BOW}]], [
        {"messages": [{"role": "user", "content": KNOT}]}, {"messages": [{"role": "user", "content": BOW}]}]),
    "one conversation": (
        [{"role": "user", "content": KNOT}, {"role": "assistant", "content": "Loop."}],
        [{"messages": [{"role": "user", "content": KNOT}, {"role": "assistant", "content": "Loop."}]}]),
    "a preference pair": (
        [{"chosen": [{"role": "user", "content": KNOT}], "rejected": [{"role": "user", "content": KNOT}]}],
        [{"chosen": [{"role": "user", "content": KNOT}], "rejected": [{"role": "user", "content": KNOT}]}]),
    "nested cells": ([{"prompt": {"text": KNOT}, "label": {"value": 1}}], [
        {"prompt": {"text": KNOT}, "label": {"value": 1}}]),
    "trees in a list": ([{"Ropes": [KNOT]}, {"Bows": [BOW]}], [
        {"text": KNOT, "category": ["Ropes"]}, {"text": BOW, "category": ["Bows"]}]),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("large", [False, True], ids=["whole", "streamed"])
def test_json_of_every_shape(write: Write, shape: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is too large to be read at once gives the same rows."""
    if large:
        monkeypatch.setattr(json_files, "WHOLE", 0)
    content, expected = SHAPES[shape]
    assert _rows(write("a.json", json.dumps(content, indent=1))) == expected


def test_objects_one_after_another(write: Write) -> None:
    file = write("a.json", json.dumps({"prompt": KNOT}, indent=1) + "\n" + json.dumps({"prompt": BOW}, indent=1))
    assert _rows(file) == [{"prompt": KNOT}, {"prompt": BOW}]


def test_large_json_that_is_broken_or_of_another_encoding(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "WHOLE", 0)
    with pytest.raises(InputError, match="is not JSON") as caught:
        _rows(write("a.json", '[\n{"prompt": "How?"},\n{"prompt": oops}\n]'))
    assert "oops" not in str(caught.value)
    with pytest.raises(InputError, match="is not JSON"):
        _rows(write("b.json", '{"data": [{"prompt": "How?"}'))
    assert _rows(write("c.json", json.dumps([{"p": "caf\u00e9"}], ensure_ascii=False).encode("cp1252"))) == [
        {"p": "caf\u00e9"}
    ]
    assert _rows(write("d.json", '{"prompt": "a"}\n{"prompt": "b"}\n')) == [{"prompt": "a"}, {"prompt": "b"}]
    assert _rows(write("e.json", '[{"score": 0.5, "n": 1, "x": null, "ok": true, "p": "How?"}]')) == [
        {"score": 0.5, "n": 1, "x": None, "ok": True, "p": "How?"}
    ]


def test_a_malformed_json_line_in_the_middle(write: Write) -> None:
    file = write("a.jsonl", codecs.BOM_UTF8 + b'{"prompt": "a"}\n\n{"prompt": \n17\n{"prompt": "b"}\n')
    with pytest.raises(InputError, match="line 3: is not JSON") as caught:
        _rows(file)
    assert "--skip-bad" in caught.value.fix
    bad: list[InputError] = []
    assert [row for _, row in read_rows(str(file), bad.append)] == [{"prompt": "a"}, {"prompt": "b"}]
    assert [str(error.value).rpartition("line ")[2] for error in bad] == ["3", "4"]


def test_parquet(write: Write, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = [{"prompt": KNOT, "topic": ["a", "b"]}, {"prompt": BOW, "topic": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert _rows(tmp_path / "a.parquet") == rows
    with pytest.raises(InputError, match="is not Parquet"):
        _rows(write("b.parquet", "prompt\n"))


def test_arrow_and_feather(write: Write, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.feather

    rows: list[Row] = [{"prompt": KNOT, "topic": "a"}, {"prompt": BOW, "topic": None}]
    table = pa.Table.from_pylist(rows)
    pyarrow.feather.write_feather(table, str(tmp_path / "a.feather"))
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert _rows(tmp_path / "a.feather") == rows
    assert _rows(tmp_path / "a.arrow") == rows
    with pytest.raises(InputError, match="is not Arrow"):
        _rows(write("b.arrow", "prompt\n"))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_compressed_files(write: Write, tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert _rows(write(f"a.csv{suffix}", pack(f"prompt\n{KNOT}\n".encode()))) == [{"prompt": KNOT}]
    assert _rows(write(f"A.JSONL{suffix.upper()}", pack(b'{"prompt": "a"}'))) == [{"prompt": "a"}]
    pq.write_table(pa.Table.from_pylist([{"prompt": KNOT}]), tmp_path / "a.parquet")
    packed = write(f"a.parquet{suffix}", pack((tmp_path / "a.parquet").read_bytes()))
    assert _rows(packed) == [{"prompt": KNOT}]
    whole = pack(("prompt\n" + "".join(f"How do I tie knot {n}?\n" for n in range(5000))).encode())
    for content in (whole[: len(whole) // 2], b"prompt\nno archive\n"):
        with pytest.raises(InputError, match="compressed and damaged"):
            _rows(write(f"b.csv{suffix}", content))
    with pytest.raises(InputError, match="not read"):
        _rows(write(f"c{suffix}", pack(b"x")))


def test_a_zip_is_read_like_a_folder(tmp_path: Path, write: Write) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as opened:
        opened.writestr("set/b.txt", BOW)
        opened.writestr("set/a.csv.gz", gzip.compress(f"prompt\n{KNOT}\n".encode()))
        opened.writestr("__MACOSX/set/._a.csv", "junk")
        opened.writestr("set/README.txt", "About this set.")
    assert _rows(tmp_path / "set.zip") == [{"prompt": KNOT}, {"text": BOW}]
    assert _rows(tmp_path) == [{"prompt": KNOT}, {"text": BOW}]
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as opened:
        opened.writestr("code.py", "x = 1")
    with pytest.raises(InputError, match="holds no data file"):
        _rows(tmp_path / "none.zip")


def test_what_stands_beside_the_data_in_a_folder_is_left_out(write: Write, tmp_path: Path) -> None:
    for name in ("README.txt", "LICENSE.txt", "dataset_infos.json", ".cache/x.jsonl", "config.json"):
        write(f"set/{name}", '{"text": "no request here"}')
    write("set/train.txt", KNOT)
    assert _rows(tmp_path / "set") == [{"text": KNOT}]


def test_a_spreadsheet_says_how_to_export_it(write: Write) -> None:
    with pytest.raises(InputError, match="spreadsheets are not read") as caught:
        _rows(write("a.xlsx", "x"))
    assert "CSV" in caught.value.fix


def test_members_of_a_zip_by_pattern(tmp_path: Path) -> None:
    archive = tmp_path / "tool-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("tool/data/b.txt", BOW)
        opened.writestr("tool/data/a.jsonl", json.dumps({"prompt": KNOT}))
        opened.writestr("tool/code.py", "x = 1")
    assert _rows(f"{archive}::tool/data/*") == [{"prompt": KNOT}, {"text": BOW}]
    assert _rows(f"{tmp_path}/tool-*.whl::tool/data/b.txt") == [{"text": BOW}]
    with pytest.raises(InputError, match="no member matches"):
        _rows(f"{archive}::tool/none.csv")
    with pytest.raises(InputError, match="no such archive"):
        _rows(f"{tmp_path}/none.zip::a.csv")


def test_an_archive_that_is_none(write: Write) -> None:
    with pytest.raises(InputError, match="is not a zip"):
        _rows(f"{write('a.zip', 'no')}::a.csv")


def test_a_file_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "knots_for_tests" / "data").mkdir(parents=True)
    (tmp_path / "knots_for_tests" / "__init__.py").touch()
    (tmp_path / "knots_for_tests" / "data" / "a.txt").write_text(KNOT)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(read_rows("pkg:knots_for_tests/data/a.txt")) == [("data/a.txt", {"text": KNOT})]
    with pytest.raises(InputError, match="has no file"):
        _rows("pkg:knots_for_tests/none.txt")


def test_a_package_that_is_not_installed_names_the_command() -> None:
    with pytest.raises(InputError, match="not installed") as caught:
        _rows("pkg:surely_not_installed_here/a.csv")
    assert caught.value.fix == "Run: pip install surely_not_installed_here"


def test_a_folder_and_a_glob_are_read_in_name_order(write: Write, tmp_path: Path) -> None:
    write("set/b.txt", BOW)
    write("set/a.txt", KNOT)
    write("set/LICENSE", "no rows")
    assert [row["text"] for row in _rows(tmp_path / "set")] == [KNOT, BOW]
    assert [Path(name).name for name, _ in read_rows(f"{tmp_path}/set/*.txt")] == ["a.txt", "b.txt"]


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list([{"prompt": KNOT}, {"prompt": BOW}])
    table.save_to_disk(str(tmp_path / "single"))
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(str(tmp_path / "splits"))
    assert [row for _, row in read_rows(f"disk:{tmp_path}/single")] == [{"prompt": KNOT}, {"prompt": BOW}]
    assert len(list(read_rows(f"disk:{tmp_path}/splits"))) == 2
    assert [row for _, row in read_rows(f"disk:{tmp_path}/splits@test")] == [{"prompt": BOW}]
    with pytest.raises(InputError, match="saved by") as caught:
        _rows(tmp_path / "single")
    assert f"disk:{tmp_path}/single" in caught.value.fix
    with pytest.raises(InputError, match="could not be loaded"):
        list(read_rows(f"disk:{tmp_path}/none"))
    with pytest.raises(InputError, match="could not be loaded"):
        list(read_rows(f"disk:{tmp_path}/splits@nowhere"))


def test_a_hub_name_goes_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, config: str | None, split: str, streaming: bool) -> list[Row]:
        asked.append((name, split))
        assert streaming
        return [{"prompt": KNOT}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_rows("hub:owner/name@test")) == [("owner/name", {"prompt": KNOT})]
    assert len(list(read_rows("hub:owner/name"))) == 1
    assert asked == [("owner/name", "test"), ("owner/name", "train")]


def test_a_hub_that_is_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nand a long traceback")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match="no route") as caught:
        list(read_rows("hub:owner/name"))
    assert "local file" in caught.value.fix
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ""), ("b.csv", "prompt,topic\n"), ("a.json", "[]"), ("b.json", "{}"), ("a.jsonl", "\n\n"),
        ("a.txt", "\n"), ("a.tsv", "# a comment\n"),
    ],
)  # fmt: skip
def test_an_empty_file_is_an_error(write: Write, name: str, content: str) -> None:
    with pytest.raises(InputError, match="holds no rows") as caught:
        _rows(write(name, content))
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [("a.jsonl", '{"a": 1}\n\n{"a": \n', "line 3"), ("a.json", '[\n{"a": 1},\n{"a": ]\n', "line 3")],
)
def test_broken_json_names_the_line(write: Write, name: str, content: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        _rows(write(name, content))


def test_a_missing_file_and_a_glob_without_match_are_errors(tmp_path: Path) -> None:
    for spec in (tmp_path / "none.csv", tmp_path / "*.csv", tmp_path):
        with pytest.raises(InputError, match="no such file") as caught:
            _rows(spec)
        assert str(spec) in str(caught.value.value)


def test_an_unknown_type_names_those_that_are_read(write: Write) -> None:
    with pytest.raises(InputError, match="not read") as caught:
        _rows(write("a.docx", "x"))
    assert ".parquet" in caught.value.fix
