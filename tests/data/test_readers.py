"""Every shape of file in which such sets are published, written here by hand and read back."""

from __future__ import annotations

import codecs
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forethought.data.readers import Row, read_datasets, read_rows
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


def test_latin_1_is_read_where_utf_8_does_not_decode(write: Write) -> None:
    assert _rows(write("a.csv", "prompt,n\nWhere is the caf\u00e9?,1\n".encode("latin-1")))[0]["prompt"].endswith(
        "caf\u00e9?"
    )


def test_utf_8_is_not_doubted_where_the_probe_cuts_a_character(write: Write) -> None:
    text = "a" * ((1 << 20) - 1) + "\u00e9\nB\u00e9\n"
    assert [row["text"][-2:] for row in _rows(write("a.txt", text))] == ["a\u00e9", "B\u00e9"]


def test_an_encoding_that_changes_late_is_an_error(write: Write) -> None:
    with pytest.raises(InputError, match="UTF-8"):
        _rows(write("a.txt", b"a" * (1 << 20) + b"\n" + b"caf\xe9\n" * 10))


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


def test_parquet(write: Write, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = [{"prompt": KNOT, "topic": ["a", "b"]}, {"prompt": BOW, "topic": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert _rows(tmp_path / "a.parquet") == rows
    with pytest.raises(InputError, match="is not Parquet"):
        _rows(write("b.parquet", "prompt\n"))


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
    assert [row for _, row in read_datasets(f"disk:{tmp_path}/single")] == [{"prompt": KNOT}, {"prompt": BOW}]
    assert len(list(read_datasets(f"disk:{tmp_path}/splits"))) == 2
    assert [row for _, row in read_datasets(f"disk:{tmp_path}/splits@test")] == [{"prompt": BOW}]
    with pytest.raises(InputError, match="saved by") as caught:
        _rows(tmp_path / "single")
    assert f"disk:{tmp_path}/single" in caught.value.fix
    with pytest.raises(InputError, match="could not be loaded"):
        list(read_datasets(f"disk:{tmp_path}/none"))
    with pytest.raises(InputError, match="could not be loaded"):
        list(read_datasets(f"disk:{tmp_path}/splits@nowhere"))


def test_a_hub_name_goes_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str, streaming: bool) -> list[Row]:
        asked.append((name, split))
        assert streaming
        return [{"prompt": KNOT}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_datasets("hub:owner/name@test")) == [("owner/name", {"prompt": KNOT})]
    assert len(list(read_datasets("hub:owner/name"))) == 1
    assert asked == [("owner/name", "test"), ("owner/name", "train")]


def test_a_hub_that_is_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nand a long traceback")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match="no route") as caught:
        list(read_datasets("hub:owner/name"))
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
