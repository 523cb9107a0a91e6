"""The report of overlaps: what was removed because of what, and nothing harmful spelled out in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forethought.data.dedupe import (
    EVALUATION_SETS,
    OverlapReport,
    decontaminate,
    evaluation_set,
    known_evaluation_sets,
    overlaps,
    remove_duplicates,
    removed_by_cause,
)
from forethought.data.shipped import shipped_requests
from forethought.errors import ConfigError, InputError
from forethought.manifest import write_json
from forethought.records import Request, user_request

LONG = "How do I tie a bowline around a zanzibar post on a boat that moves in the wind"


def _ask(text: str, harmful: bool | None = True, source: str = "mine.csv") -> Request:
    return user_request(text, harmful=harmful, source=source)


ROWS = [_ask(LONG), _ask("Why is rope twisted?"), _ask(LONG + " please"), _ask("Why are ropes twisted?")]
SETS = {"knots": [_ask(LONG + "!", source="knots.csv"), _ask("What is a reef knot?")], "bread": [_ask("Bake bread")]}


def test_every_pair_is_reported_by_set() -> None:
    report = overlaps(ROWS, SETS)
    assert [(pair.id, pair.other_id, pair.how) for pair in report.overlaps["knots"]] == [
        (ROWS[0].id, SETS["knots"][0].id, "exact"),
        (ROWS[2].id, SETS["knots"][0].id, "near"),
    ]
    assert report.overlaps["bread"] == ()
    assert report.counts == {"knots": 2, "bread": 0}
    assert report.evaluation_counts == {"knots": 1, "bread": 0}
    assert report.evaluation == {"knots": 2, "bread": 1}
    assert report.contaminated == {ROWS[0].id, ROWS[2].id}
    assert (report.overlaps["knots"][0].source, report.overlaps["knots"][0].other_source) == ("mine.csv", "knots.csv")


def test_texts_are_cut_unless_asked() -> None:
    assert "zanzibar" not in overlaps(ROWS, SETS).model_dump_json()
    assert overlaps(ROWS, SETS).overlaps["knots"][0].text == "How do I tie a b [62 characters redacted]"
    assert overlaps(ROWS, SETS, whole_texts=True).overlaps["knots"][0].text == LONG


def test_decontamination_keeps_what_remove_duplicates_keeps_and_counts_the_same() -> None:
    kept, report = decontaminate(ROWS, SETS)
    assert kept == [ROWS[1]]
    assert [(pair.id, pair.other_id) for pair in report.repeats] == [(ROWS[3].id, ROWS[1].id)]
    plain, removed = remove_duplicates(ROWS, [request for tested in SETS.values() for request in tested])
    assert plain == kept
    assert sum(removed_by_cause(report).values()) == sum(removed.values()) == 3
    assert removed_by_cause(report) == {
        "near an evaluation request (knots)": 2,
        "near an earlier request of the set": 1,
    }


def test_a_request_near_two_sets_is_removed_once() -> None:
    _, report = decontaminate([_ask(LONG)], {"a": [_ask(LONG)], "b": [_ask(LONG)]})
    assert report.counts == {"a": 1, "b": 1}
    assert removed_by_cause(report).total() == 1


def test_the_report_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    _, report = decontaminate(ROWS, SETS)
    write_json(tmp_path / "overlaps.json", report.model_dump())
    assert OverlapReport.model_validate(json.loads((tmp_path / "overlaps.json").read_text("utf-8"))) == report


def test_nothing_to_compare_with() -> None:
    kept, report = decontaminate([], {})
    assert kept == []
    assert report.counts == {}


def test_the_shipped_evaluation_sets_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EVALUATION_SETS, raising=False)
    sets = known_evaluation_sets()
    assert list(sets) == ["shipped contrast, test", "shipped ordinary, test", "shipped calibration", "capability"]
    assert all(sets.values())
    assert "What is the capital of France?" in {request.text for request in sets["capability"]}
    assert overlaps([_ask("what's the capital of france", False)], sets).counts["capability"] == 1


def test_no_row_near_a_calibration_request_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold is set on these: a model trained on them would refuse fewer of them than of new requests."""
    monkeypatch.delenv(EVALUATION_SETS, raising=False)
    held = shipped_requests("calibration")[0]
    rows = [_ask(f"Please: {held.text.lower()}", False), _ask("Why is rope twisted?", False)]
    kept, report = decontaminate(rows, known_evaluation_sets())
    assert kept == [rows[1]]
    assert removed_by_cause(report) == {"near an evaluation request (shipped calibration)": 1}


def test_no_shipped_training_row_is_lost_to_the_calibration_set() -> None:
    trained = [request for name in ("contrast", "ordinary") for request in shipped_requests(name, "train")]
    assert overlaps(trained, {"calibration": shipped_requests("calibration")}).counts == {"calibration": 0}


def test_the_users_evaluation_sets_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sets"
    (folder / "more").mkdir(parents=True)
    (folder / "one.csv").write_text("prompt\nHow do I tie a reef knot?\n", encoding="utf-8")
    (folder / "two.jsonl").write_text('{"question": "Why is rope twisted?"}\n', encoding="utf-8")
    (folder / "more" / "three.txt").write_text("How deep is the harbour?\n", encoding="utf-8")
    monkeypatch.setenv(EVALUATION_SETS, f"{folder / 'one.csv'}:{folder}:")
    sets = known_evaluation_sets()
    assert {"one.csv", "two.jsonl"} <= set(sets)
    # The same file named twice is compared with twice and hides no other.
    assert {request.text for request in sets["one.csv"]} == {"How do I tie a reef knot?"}


def test_two_files_of_one_name_are_both_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, text in (("a", "How do I tie a reef knot?"), ("b", "Why is rope twisted?")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "test.csv").write_text(f"prompt\n{text}\n", encoding="utf-8")
    monkeypatch.setenv(EVALUATION_SETS, f"{tmp_path / 'a' / 'test.csv'}:{tmp_path / 'b' / 'test.csv'}")
    assert len(known_evaluation_sets()["test.csv"]) == 2


def test_an_evaluation_set_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVALUATION_SETS, str(tmp_path / "gone.csv"))
    with pytest.raises(ConfigError, match="no such evaluation set"):
        known_evaluation_sets()
    (tmp_path / "empty.csv").write_text("prompt\n", encoding="utf-8")
    with pytest.raises(InputError):
        evaluation_set(str(tmp_path / "empty.csv"))
