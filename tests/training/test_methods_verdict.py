"""Rows that mark what decides: weighted, consistent, and reasoning in steps with pivots."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

import pytest

from forethought.chat import encode_completion, encode_prompt
from forethought.errors import ModelError
from forethought.policy import default_policy
from forethought.reasoning import Format, parse
from forethought.records import Example
from forethought.training.methods.base import Material, reasoned
from forethought.training.methods.verdict import (
    CONSISTENT,
    REASONING_FIRST,
    RETHINK,
    SAFE,
    UNSAFE,
    WEIGHTED,
    Emphasis,
    rival_at,
    token_spans,
    weighted,
)
from forethought.training.rows import IGNORED, TokenRow, prompt_tokens
from tests.tiny import REFUSE_TEXT, harmful_example, harmless_example, tiny_tokenizer

_tokenizer = lru_cache(maxsize=1)(tiny_tokenizer)
FORMATS: tuple[Format, ...] = ("think", "paper")


def _styled(example: Example) -> Example:
    return example.model_copy(update={"request": example.request.restyled(f"Yo, {example.request.text}", "slang")})


@pytest.fixture(scope="module")
def material() -> Material:
    """A harmful and a harmless request, each plain and disguised, and a harmful one without an answer."""
    plain = [harmful_example(), harmless_example()]
    bare = harmful_example("Help me copy a paid game").model_copy(update={"answer": "", "answer_complete": False})
    return Material([*plain, *map(_styled, plain), bare], _tokenizer(), default_policy())


def _marked(row: TokenRow, column: tuple[Any, ...], unmarked: Any) -> list[tuple[str, Any]]:
    """(text of the token, what the column says) where it says something."""
    pairs = zip(row.input_ids, column, strict=True)
    return [(str(_tokenizer().decode([token])), value) for token, value in pairs if value != unmarked]


def _taught(row: TokenRow) -> str:
    return str(_tokenizer().decode([label for label in row.labels if label != IGNORED]))


# Weighted.


@pytest.mark.parametrize("fmt", FORMATS)
def test_weights_stand_on_intent_verdict_and_first_words(material: Material, fmt: Format) -> None:
    material = dataclasses.replace(material, format=fmt)
    rows = WEIGHTED.rows(material)
    said = _marked(rows[0], rows[0].weights, 1.0)
    by_weight = {weight: "".join(text for text, own in said if own == weight) for _, weight in said}
    assert by_weight[Emphasis().intent].strip(" .") == "copy a paid film without paying"
    assert by_weight[Emphasis().verdict] == " refuse"
    assert REFUSE_TEXT.startswith(by_weight[Emphasis().answer])
    assert sum(weight == Emphasis().answer for _, weight in said) == Emphasis().answer_tokens
    # Without an answer nothing stands for it, and what is taught is SCoT's in any case.
    assert Emphasis().answer not in rows[4].weights
    bare = [row.model_copy(update={"weights": ()}) for row in rows]
    assert bare == reasoned(material)


def test_weights_stand_on_the_steps_that_solve_and_on_what_they_find(material: Material) -> None:
    example = material.examples[0]
    solving = example.reasoning.model_copy(update={"steps": ("seven and two is nine",), "asked": "Copy a film"})
    row = weighted(material, example.model_copy(update={"reasoning": solving}), Emphasis(solving=7.0))
    said = "".join(text for text, weight in _marked(row, row.weights, 1.0) if weight == 7.0)
    assert said.replace(" ", "").replace(".", "") == "sevenandtwoisnineCopyafilm"


def test_a_prefill_moves_the_weights_along(material: Material) -> None:
    opened = material.examples[0].model_copy(update={"prefill": "Sure, here is"})
    (row,) = WEIGHTED.rows(dataclasses.replace(material, examples=[opened]))
    assert [text for text, weight in _marked(row, row.weights, 1.0) if weight == Emphasis().verdict] == [" refuse"]


def test_a_tokenizer_that_can_not_tell_places_is_named() -> None:
    class Slow:
        is_fast = False
        name_or_path = "slow"

    with pytest.raises(ModelError, match="where its tokens stand"):
        token_spans(Slow(), "x")


# Consistent.


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_disguise_has_the_plain_request_beside_it(material: Material, fmt: Format) -> None:
    material = dataclasses.replace(material, format=fmt)
    rows = CONSISTENT.rows(material)
    for place, verdict, rival in ((2, " refuse", " comply"), (3, " comply", " refuse")):
        row, plain = rows[place], material.examples[place - 2]
        prompt = encode_prompt(material.tokenizer, plain.request.messages)
        assert list(row.other_input_ids[: len(prompt)]) == prompt
        # It ends at the verdict, which alone has a rival, on both sides the same.
        assert [(text, _tokenizer().decode([value])) for text, value in _marked(row, row.rivals, IGNORED)] == [
            (verdict, rival)
        ]
        assert row.other_rivals[:-1] == (IGNORED,) * (len(row.other_rivals) - 1)
        assert _tokenizer().decode([row.other_input_ids[-1], row.other_rivals[-1]]) == verdict + rival
    assert all(not row.other_input_ids and not row.rivals for row in (rows[0], rows[1], rows[4]))
    assert material.examples[0].request.undisguised == material.examples[0].request


def test_the_thought_is_the_same_on_both_sides(material: Material) -> None:
    row = CONSISTENT.rows(material)[2]
    own = row.input_ids[prompt_tokens(row) :]
    start = next(place for place, label in enumerate(row.other_labels) if label != IGNORED)
    other = row.other_input_ids[start:]
    assert own[: len(other)] == other


# In steps.


@pytest.mark.parametrize("fmt", FORMATS)
def test_steps_end_in_pivots_and_the_verdict_is_read_as_before(material: Material, fmt: Format) -> None:
    material = dataclasses.replace(material, format=fmt)
    for row, example in zip(REASONING_FIRST.rows(material), material.examples, strict=True):
        parsed = parse(_taught(row), material.policy)
        assert parsed.reasoning is not None
        assert parsed.reasoning.verdict == example.reasoning.verdict
        assert parsed.reasoning.violated == example.reasoning.violated
        assert parsed.reasoning.intent == example.reasoning.intent
        pivot = UNSAFE if example.term == "refusal" else SAFE
        lines = parsed.reasoning_text.splitlines()
        marks = [line for line in lines if line.startswith("[")]
        disguised = example.request.operator is not None
        assert marks == [*([RETHINK] if disguised else []), pivot, pivot]
        assert lines[-1].startswith("Verdict: ")
        assert lines[-2] == pivot


def test_a_pivot_is_set_against_the_opposite_one(material: Material) -> None:
    tokenizer = material.tokenizer
    safe, unsafe = (encode_completion(tokenizer, f"\n{mark}\n", end=False) for mark in (SAFE, UNSAFE))
    place = next(n for n, (a, b) in enumerate(zip(safe, unsafe, strict=False)) if a != b)
    for row, example in zip(REASONING_FIRST.rows(material), material.examples, strict=True):
        own, rival = (unsafe, safe) if example.term == "refusal" else (safe, unsafe)
        found = [(row.input_ids[n], value) for n, value in enumerate(row.rivals) if value != IGNORED]
        assert found == [(own[place], rival[place])] * 2
        assert [row.labels[n] for n, value in enumerate(row.rivals) if value != IGNORED] == [own[place]] * 2


def test_a_datasets_own_reasoning_is_a_step(material: Material) -> None:
    example = material.examples[0]
    thought = example.reasoning.model_copy(update={"deliberation": "It is about a paid film."})
    reasoned_by_hand = example.model_copy(update={"reasoning": thought})
    (row,) = REASONING_FIRST.rows(dataclasses.replace(material, examples=[reasoned_by_hand]))
    assert f"{UNSAFE}\nIt is about a paid film.\n{UNSAFE}\n" in _taught(row)


def test_words_that_tokens_do_not_tell_apart_are_an_error(material: Material) -> None:
    with pytest.raises(ModelError, match="does not tell 'yes' from 'yes'"):
        rival_at(material.tokenizer, "It says yes", (8, 11), "yes")
