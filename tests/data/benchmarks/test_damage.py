"""Damaged rows are named by line, ids are unique, and files that do not belong together are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forethought.errors import InputError
from forethought.records import user_request
from tests.data.benchmarks.rows import (
    BOW,
    KITE,
    KNOT,
    read,
    texts,
    write_csv,
    write_json,
)


def test_malformed_rows_are_named_by_line_and_skipped_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [
        "category,source,forbidden_prompt",
        'Ropes,us,"How do I tie\na knot?"',
        "Ropes,us,",
        f"Ropes,us,{BOW},one too many",
    ]
    rows = [*lines, "Ropes,us, ", f"Wind,us,{KITE}"]
    path.write_text("\n".join([*lines[:2], *rows[3:]]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.csv, line 4: has 4 cells for 3 columns"):
        read(path)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.csv, line 4: has no text in forbidden_prompt"):
        read(path)
    found = read(path, skip_bad=True)
    assert texts(found) == ["How do I tie\na knot?", KITE]
    places = [place.removeprefix(str(path)) for place in found.malformed]
    assert sorted(place.split(":")[0] for place in places) == [", line 4", ", line 5", ", line 6"]


def test_malformed_json_lines_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"harm_area": "Ropes", "prompt": KNOT})
    bad = json.dumps({"harm_area": "Ropes", "prompt": None})
    path.write_text(f"{good}\n\n{bad}\n{{broken\n{bad}\n", encoding="utf-8")
    found = read(path, skip_bad=True)
    assert len(found.behaviors) == 1
    # What the reader finds comes first.
    assert [place.split(":")[0].rpartition(" ")[2] for place in found.malformed] == ["4", "3", "5"]
    with pytest.raises(InputError, match="line 3: has no text in prompt"):
        read(path)


def test_where_there_are_no_lines_the_rows_number_is_named(tmp_path: Path) -> None:
    path = write_json(tmp_path / "rows.json", [{"harm_area": "a", "prompt": KNOT}, {"harm_area": "a", "prompt": 7}])
    with pytest.raises(InputError, match=r"rows\.json, row 2: has a request that is no text \(int\)"):
        read(path)


def test_a_benchmark_of_malformed_rows_alone_is_an_error_even_when_skipped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{"harm_area": "Ropes", "prompt": ""}])
    with pytest.raises(InputError, match=r"holds no request; 1 rows are malformed, the first is .*line 2"):
        read(path, skip_bad=True)


def test_ids_are_unique_and_rows_that_say_the_same_stand_once(tmp_path: Path) -> None:
    row = {"id": "a", "harm_area": "Ropes", "prompt": KNOT}
    found = read(
        write_csv(tmp_path / "rows.csv", [row, row, row | {"prompt": BOW}, row | {"id": ""}, row | {"id": "b"}])
    )
    own = user_request(KNOT).id
    assert [one.id for one in found.behaviors] == ["a", "a~2", own, "b"]
    assert (found.repeated, found.renamed) == (1, 1)


def test_a_second_file_of_another_layout_is_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"harm_area": "Ropes", "prompt": KNOT}])
    write_csv(tmp_path / "b.csv", [{"ask": KNOT, "area": "Ropes"}])
    with pytest.raises(InputError, match=r"b\.csv: is not of the layout 'simple_safety_tests'"):
        read(tmp_path)
