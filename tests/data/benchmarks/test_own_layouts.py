"""Files of no layout, layouts of one's own, and how a layout is recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.data import readers
from forethought.data.benchmarks import detect_layout, find_layout, layouts, load_benchmark
from forethought.errors import ConfigError, InputError
from forethought.records import Message
from tests.data.benchmarks.rows import (
    JBB,
    KNOT,
    labels,
    read,
    texts,
    write_csv,
    write_lines,
)


def test_a_file_without_a_layout_goes_through_the_mapping(tmp_path: Path) -> None:
    rows = [{"ask": KNOT, "area": "ropes", "said": "Like so.", "verdict": "unsafe"}] * 2
    columns = {"text": "ask", "category": "area", "answer": "said", "label": "verdict"}
    found = read(write_csv(tmp_path / "My Set.csv", rows), columns=columns)
    assert (found.layout, found.name, found.repeated) == (None, "my_set", 1)
    (behavior,) = found.behaviors
    assert behavior.request.categories == ("ropes",)
    assert behavior.request.harmful is True
    assert behavior.reference == "Like so."
    assert behavior.request.answer is None


def test_conversations_end_with_the_users_turn(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": KNOT},
        {"role": "assistant", "content": "Why?"},
        {"role": "user", "content": "So?"},
    ]
    answered = [*turns, {"role": "assistant", "content": "Like so."}]
    found = read(write_lines(tmp_path / "oktest.jsonl", [{"prompt": answered}]))
    assert found.layout == "oktest"
    assert found.behaviors[0].request.messages == tuple(Message.model_validate(turn) for turn in turns)


def test_packages_and_hub_names_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_benchmark("pkg:forethought/data/capability.jsonl").layout is None
    assert len(load_benchmark("shipped:ordinary").behaviors) > 10
    monkeypatch.setattr(readers, "read_datasets", lambda spec: iter([("owner/jbb", JBB)]))
    assert labels(load_benchmark("hub:owner/jbb@benign")) == [False]
    assert labels(load_benchmark("hub:owner/jbb@harmful")) == [True]


@pytest.mark.parametrize("name", sorted(layouts()))
def test_a_layout_is_recognised_as_itself_by_each_of_its_signatures(name: str) -> None:
    layout = layouts()[name]
    assert layout.signatures
    for signature in layout.signatures:
        row = {column: ["a b c"] if column in signature.lists else "a b c" for column in signature.columns}
        said = {"or_bench": "or-bench.csv", "trustllm_jailbreak": "trustllm.csv"}.get(name, f"{name}.csv")
        assert detect_layout([row], said if signature.named else "rows.csv") == layout
        if signature.named:
            other = detect_layout([row], "rows.csv")
            assert other is None or other != layout


def test_a_named_layout_has_to_fit_and_to_exist(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{"ask": KNOT, "area": "ropes"}])
    with pytest.raises(InputError, match="is not of the layout 'harmbench': it has ask, area"):
        read(path, layout="harmbench")
    with pytest.raises(ConfigError, match="there is no such layout"):
        read(path, layout="harm")
    with pytest.raises(ConfigError, match="columns are named as well"):
        read(path, layout="harmbench", columns={"text": "ask"})


def test_a_layout_of_ones_own_is_a_file(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("name: own\ntitle: Mine\nrequest: [ask]\ncategory: [area]\notherwise: harmless\n", encoding="utf-8")
    found = read(write_csv(tmp_path / "rows.csv", [{"ask": KNOT, "area": "ropes"}]), layout=str(own))
    assert (found.layout, texts(found), labels(found)) == ("own", [KNOT], [False])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: own\ntitle: Mine\n", "needs one of 'request' and 'languages'"),
        ("name: own\ntitle: Mine\nrequest: [ask]\nfiles: '('\n", "valid regular expression"),
        ("name: own\ntitle: Mine\nrequest: [ask]\ncolour: red\n", "at 'colour'"),
        ("- own\n", "is not a layout"),
    ],
)
def test_a_layout_that_is_not_valid_says_where(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=fault):
        find_layout(str(tmp_path / "own.yaml"))


def test_a_file_whose_rows_ask_nothing_is_an_error(tmp_path: Path) -> None:
    """No row of it is malformed: an empty request is left out where the layout allows it."""
    (tmp_path / "own.yaml").write_text("name: own\ntitle: Mine\nrequest: [ask]\nblank: left out\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no request"):
        load_benchmark(str(write_lines(tmp_path / "rows.jsonl", [{"ask": ""}])), layout=str(tmp_path / "own.yaml"))
