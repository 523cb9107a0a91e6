"""Three disjoint sets: by family where there are families, by content elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.data.columns import ColumnMapping
from forethought.data.sources import SourceSpec, cap_per_rule, load_split, sample
from forethought.errors import InputError
from forethought.records import Request, user_request, write_jsonl


def _file(folder: Path, count: int, name: str = "a.csv") -> SourceSpec:
    file = folder / name
    words = ["rope", "sail", "mast", "oar", "keel", "hull", "deck"]
    rows = [f"How do I mend {words[n % 7]} {n} with {words[n // 7 % 7]} {n * 13}?" for n in range(count)]
    file.write_text("prompt\n" + "\n".join(rows) + "\n")
    return SourceSpec(path=str(file))


def _ids(requests: list[Request]) -> set[str]:
    return {request.id for request in requests}


def test_shares_are_about_as_asked_and_no_request_stands_twice(tmp_path: Path) -> None:
    parts = load_split([_file(tmp_path, 1000)], True, held_out_share=0.2, dev_share=0.1)
    assert 150 < len(parts["test"]) < 250
    assert 70 < len(parts["dev"]) < 130
    assert sum(len(_ids(rows)) for rows in parts.values()) == 1000
    assert all(request.harmful for rows in parts.values() for request in rows)


def test_the_split_of_a_request_depends_on_nothing_else(tmp_path: Path) -> None:
    small = load_split([_file(tmp_path, 50)], True, 0.2, 0.1)
    large = load_split([_file(tmp_path, 400)], True, 0.2, 0.1)
    for split in small:
        assert _ids(small[split]) <= _ids(large[split])


def test_a_limit_is_spread_over_the_source(tmp_path: Path) -> None:
    spec = _file(tmp_path, 400).model_copy(update={"limit": 40})
    parts = load_split([spec], True, 0.2, 0.1)
    places = sorted(int(request.text.split()[5]) for rows in parts.values() for request in rows)
    assert len(places) == 40
    assert all(any(start <= place < start + 100 for place in places) for start in range(0, 400, 100))
    # What is drawn is no judge of the split: all three still have their share.
    assert all(len(rows) >= 1 for rows in parts.values())
    assert len(parts["train"]) > 20


@pytest.mark.parametrize("harmful", [True, False])
def test_of_a_shipped_set_with_both_sides_one_is_read(harmful: bool) -> None:
    parts = load_split([SourceSpec(path="shipped:borderline_pairs")], harmful, 0.2, 0.1)
    assert {row.harmful for rows in parts.values() for row in rows} == {harmful}
    assert parts["train"]
    assert parts["dev"]
    assert not parts["test"]


def test_a_limit_holds_for_a_shipped_set_too() -> None:
    parts = load_split([SourceSpec(path="shipped:harmful", limit=30)], True, 0.9, 0.05)
    whole = load_split([SourceSpec(path="shipped:harmful")], True, 0.9, 0.05)
    assert sum(len(rows) for rows in parts.values()) == 30
    for split, rows in parts.items():
        assert _ids(rows) <= _ids(whole[split])


def test_malformed_rows_are_skipped_where_the_source_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prompt,n\nHow do I tie it?,1\nHow?,2,3\n")
    with pytest.raises(InputError, match="line 3"):
        load_split([SourceSpec(path=str(file))], True, 0.2, 0.1)
    skipped: list[str] = []
    spec = SourceSpec(path=str(file), skip_bad=True)
    parts = load_split([spec], True, 0.2, 0.1, on_skip=lambda cause, where: skipped.append(cause))
    assert sum(len(rows) for rows in parts.values()) == 1
    assert skipped == ["malformed"]


def test_rows_of_the_other_label_are_left_to_the_other_side(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prompt,label\nHow do I tie it?,safe\nHow do I pick it?,unsafe\n")
    for harmful, text in ((True, "How do I pick it?"), (False, "How do I tie it?")):
        parts = load_split([SourceSpec(path=str(file))], harmful, 0.2, 0.1)
        assert [request.text for rows in parts.values() for request in rows] == [text]


def test_a_source_of_the_other_label_alone_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prompt,label\nHow do I tie it?,safe\n")
    with pytest.raises(InputError, match="column 'label': says harmless for all 1 requests"):
        load_split([SourceSpec(path=str(file))], True, 0.2, 0.1)
    own = tmp_path / "own.jsonl"
    write_jsonl(own, [user_request("How do I tie it?", harmful=False)])
    with pytest.raises(InputError, match="holds no harmful request") as caught:
        load_split([SourceSpec(path=str(own))], True, 0.2, 0.1)
    assert "label column" in caught.value.fix


def test_guessed_columns_are_shown(tmp_path: Path) -> None:
    shown: list[ColumnMapping] = []
    load_split([_file(tmp_path, 3)], True, 0.2, 0.1, lambda _, mapping: shown.append(mapping))
    assert [mapping.text for mapping in shown] == ["prompt"]


def test_shipped_sets_are_split_by_family() -> None:
    parts = load_split([SourceSpec(path="shipped:harmful")], True, 0.9, 0.05)
    families = {split: {request.family for request in rows} for split, rows in parts.items()}
    assert all(families.values())
    assert not families["train"] & families["test"]
    assert not families["dev"] & (families["train"] | families["test"])


def test_a_rule_drowns_no_other() -> None:
    many = [user_request(f"a {n}", harmful=True, rules=("R4",), source="x") for n in range(50)]
    few = [user_request(f"b {n}", harmful=True, rules=("R5",), source="x") for n in range(3)]
    other = [user_request(f"c {n}", harmful=True, rules=("R4",), source="y") for n in range(3)]
    kept = cap_per_rule([*many, *few, *other], 10)
    assert len(kept) == 16
    assert cap_per_rule(list(reversed([*many, *few, *other])), 10) != []
    assert _ids(kept) == _ids(cap_per_rule(list(reversed([*many, *few, *other])), 10))


def test_trap_12_a_sample_depends_on_its_seed_and_the_content_alone() -> None:
    rows = [user_request(f"question {n}") for n in range(200)]
    drawn = sample(rows, 50, seed=1)
    assert len(drawn) == 50
    assert drawn == sample(rows, 50, seed=1)
    assert _ids(drawn) == _ids(sample(list(reversed(rows)), 50, seed=1))
    assert drawn != sample(rows, 50, seed=2)
    assert drawn == sorted(drawn, key=rows.index)
    # One more request displaces at most one of those drawn.
    assert len(_ids(drawn) - _ids(sample([*rows, user_request("one more")], 50, seed=1))) <= 1
    assert sample(rows, 500) == rows
