"""Whole families held out: both terms, none on two sides, and the same ones every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.errors import InputError
from forethought.records import Example, write_jsonl
from forethought.training import held_out
from forethought.training.held_out import hold_out
from forethought.training.streamed import ExampleFile
from tests.tiny import harmful_example, harmless_example


def _of(example: Example, **fields: str) -> Example:
    return example.model_copy(update={"request": example.request.model_copy(update=fields)})


def _examples() -> list[Example]:
    """Twenty families of each term, each with a variant; three of them hold both terms."""
    found = []
    for number in range(20):
        bad, good = harmful_example(f"Copy film {number}"), harmless_example(f"Bake loaf {number}")
        if number < 3:
            bad, good = _of(bad, family=f"scene {number}"), _of(good, family=f"scene {number}")
        found += [bad, good]
        found += [e.model_copy(update={"request": e.request.restyled(f"Yo, {e.request.text}", "slang")})
                  for e in (bad, good)]  # fmt: skip
    return found


def test_no_family_is_on_both_sides_and_all_of_it_goes() -> None:
    examples = _examples()
    kept, held = hold_out(examples, 0.2)
    assert len(kept) + len(held) == len(examples)
    assert {e.request.cluster for e in kept}.isdisjoint({e.request.cluster for e in held})
    for term in ("refusal", "benign"):
        gone = {e.request.cluster for e in held if e.term == term}
        assert 4 <= len(gone) <= 7  # a fifth of twenty, and what the other term's families hold of this one
    assert [e for e in examples if e in kept] == list(kept)


def test_the_choice_depends_on_names_alone(tmp_path: Path) -> None:
    examples = _examples()
    _, held = hold_out(examples, 0.2)
    _, again = hold_out(examples[::-1], 0.2)
    assert {e.request.id for e in held} == {e.request.id for e in again}
    write_jsonl(tmp_path / "rows.jsonl", examples)
    kept, streamed = hold_out(ExampleFile(tmp_path / "rows.jsonl"), 0.2)
    assert isinstance(kept, ExampleFile)
    assert list(streamed) == list(held)


def test_few_of_those_held_out_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "MOST", 4)
    kept, held = hold_out(_examples(), 0.5)
    assert [sum(e.term == term for e in held) for term in ("refusal", "benign")] == [4, 4]
    assert len(kept) <= 40
    _, again = hold_out(_examples()[::-1], 0.5)
    assert {e.request.id for e in again} == {e.request.id for e in held}
    assert {e.request.cluster for e in kept}.isdisjoint({e.request.cluster for e in held})


def test_one_family_of_a_term_can_not_be_held_out() -> None:
    lone = [harmful_example(), *(harmless_example(f"Bake loaf {n}") for n in range(5))]
    with pytest.raises(InputError, match=r"hold 1 families of the term 'refusal'"):
        hold_out(lone, 0.1)
    both = [_of(e, family=f"f{n}") for n in range(2) for e in (harmful_example(f"a {n}"), harmless_example(f"b {n}"))]
    kept, held = hold_out(both, 0.1)
    assert (len(kept), len(held)) == (2, 2)
