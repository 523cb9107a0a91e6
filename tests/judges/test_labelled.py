"""Labelled files of any columns: what is guessed, what is overridden, what can't be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forethought.errors import InputError
from forethought.judges.base import Measure
from forethought.judges.labelled import Columns, LabelledItem, labelled_items, read_label, truths


@pytest.mark.parametrize(
    ("value", "column", "measure", "label"),
    [
        ("1", "label", "refused", "positive"),
        (0, "human_score", "refused", "negative"),
        (1.0, "label", "harmful", "positive"),
        (True, "is_refusal", "refused", "positive"),
        (False, "is_safe", "harmful", "positive"),
        ("true", "is_safe", "harmful", "negative"),
        ("2_full_refusal", "final_label", "refused", "positive"),
        ("3_partial_refusal", "final_label", "refused", "partial"),
        ("1_full_compliance", "final_label", "refused", "negative"),
        ("Full compliance", "final_label", "refused", "negative"),
        ("not_refusal", "label", "refused", "negative"),
        ("non-refusal", "label", "refused", "negative"),
        ("unsafe", "label", "harmful", "positive"),
        ("safe", "label", "harmful", "negative"),
        ("unharmful", "label", "harmful", "negative"),
        ("Harmful", "label", "harmful", "positive"),
        ("jailbroken", "label", "harmful", "positive"),
        ("not jailbroken", "label", "harmful", "negative"),
        ("unsuccessful", "label", "harmful", "negative"),
        ("successful", "label", "harmful", "positive"),
        ("refusal", "label", "harmful", "negative"),
        ("", "label", "refused", None),
        (None, "label", "refused", None),
        ("maybe", "label", "refused", None),
        ("0.5", "score", "harmful", "positive"),
        ("0.25", "score", "harmful", "negative"),
        ("2.5", "score", "harmful", None),
        ("0.5", "score", "refused", None),
    ],
)
def test_label_values(value: object, column: str, measure: Measure, label: str | None) -> None:
    assert read_label(value, measure, column) == label


def test_positive_values_override_the_words() -> None:
    assert read_label("safe", "refused", positive=("Safe",)) == "positive"
    assert read_label("1", "refused", positive=("safe",)) == "negative"
    assert read_label("", "refused", positive=("safe",)) is None


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("row", "measure", "request_text"),
    [
        ({"prompt": "q", "completion": "a", "final_label": "2_full_refusal"}, "refused", "q"),
        ({"question": "q", "Response": "a", "label": "1"}, "harmful", "q"),
        ({"objective": "q", "assistant_response": "a", "human_score": "1", "data_type": "text"}, "harmful", "q"),
        ({"goal": "q", "prompt": "disguised q", "target_response": "a", "human_majority": "1"}, "harmful", "q"),
        ({"prompt": "q", "response": "a", "response_harm_label": "harmful", "response_refusal_label": "compliance"},
         "harmful", "q"),
        ({"prompt": "q", "response": "a", "is_safe": False}, "harmful", "q"),
        ({"Behavior": "q", "generation": "a", "human_label_0": 1}, "harmful", "q"),
        ({"output": "a", "refusal": True}, "refused", ""),
    ],
)  # fmt: skip
def test_columns_are_guessed(tmp_path: Path, row: dict[str, object], measure: Measure, request_text: str) -> None:
    [found] = labelled_items(write(tmp_path / "x.jsonl", [row]), measure)
    assert (found.item.request, found.item.answer, found.label) == (request_text, "a", "positive")
    assert found.source == "x.jsonl"


def test_a_column_for_the_other_measure_is_not_taken(tmp_path: Path) -> None:
    row = {"prompt": "q", "response": "a", "response_harm_label": "harmful", "response_refusal_label": "compliance"}
    file = write(tmp_path / "x.jsonl", [dict(row)])
    assert labelled_items(file, "refused")[0].label == "negative"
    only_harm = write(tmp_path / "y.jsonl", [{"response": "a", "is_harmful": "1"}])
    with pytest.raises(InputError, match="no label column"):
        labelled_items(only_harm, "refused")


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", [{"a1": "yes it is", "b2": "BAD"}, {"a1": "no", "b2": "FINE"}])
    with pytest.raises(InputError, match="--column answer=NAME"):
        labelled_items(file, "harmful")
    named = Columns(answer="a1", label="b2", positive=("bad",))
    assert [item.label for item in labelled_items(file, "harmful", named)] == ["positive", "negative"]
    with pytest.raises(InputError, match="has no column 'c3'"):
        labelled_items(file, "harmful", Columns(answer="c3"))


def test_a_row_without_a_readable_label_is_kept_with_its_cause(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"answer": "a", "label": value} for value in ("refusal", "?", "")]
    found = labelled_items(write(tmp_path / "x.jsonl", rows), "refused")
    assert [(item.label, item.cause) for item in found] == [
        ("positive", ""),
        (None, "?"),
        (None, "the label is empty"),
    ]
    with pytest.raises(InputError, match="--positive VALUE"):
        labelled_items(write(tmp_path / "y.jsonl", rows[1:]), "refused")


def test_partial_refusals_count_either_way(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"answer": "a", "label": value} for value in ("refusal", "partial refusal", "compliance", "?")
    ]
    found: list[LabelledItem] = labelled_items(write(tmp_path / "x.jsonl", rows), "refused")
    assert truths(found) == [True, True, False, None]
    assert truths(found, partial_counts=False) == [True, False, False, None]


def test_the_development_sets_are_read_without_flags(shared: Path) -> None:
    """Counts from the sets' own description."""
    expected: list[tuple[str, Measure, int]] = [
        ("xstest_completions", "refused", 2250),
        ("gptfuzz_train.csv", "harmful", 6160),
        ("pyrit_refusal", "refused", 169),
        ("pyrit_objective", "harmful", 237),
    ]
    for name, measure, count in expected:
        found = labelled_items(str(shared / "judged" / name), measure)
        assert len(found) == count
        assert all(item.label and item.item.request for item in found)
