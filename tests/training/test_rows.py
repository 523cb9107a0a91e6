"""Training rows: what is taught, and that nothing else is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from forethought.chat import encode_completion, encode_prompt, end_token
from forethought.policy import default_policy
from forethought.reasoning import Detail, Format, markers, parse
from forethought.records import Example
from forethought.training.rows import IGNORED, TERMS, TokenRow, collate, tokenize, with_other
from tests.tiny import REFUSE_TEXT, harmful_example, harmless_example, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def _row(example: Example, tokenizer: Any, fmt: Format = "think", detail: Detail = "short", **kind: bool) -> TokenRow:
    return tokenize(example, tokenizer, default_policy(), fmt, detail, 0, **kind)


def _taught(row: TokenRow, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORED]))


@pytest.mark.parametrize("fmt", ["think", "paper"])
@pytest.mark.parametrize("detail", ["short", "full"])
@pytest.mark.parametrize("example", [harmful_example(), harmless_example()])
def test_labels_stand_on_the_completion_alone(tokenizer: Any, fmt: str, detail: str, example: Example) -> None:
    row = _row(example, tokenizer, cast(Format, fmt), cast(Detail, detail))
    n_prompt = len(encode_prompt(tokenizer, example.request.messages))
    assert len(row.labels) == len(row.input_ids) == row.length
    assert set(row.labels[:n_prompt]) == {IGNORED}
    # Each taught label is the token itself, so that the model is never taught something it doesn't see.
    assert row.labels[n_prompt:] == row.input_ids[n_prompt:]
    assert example.request.text not in _taught(row, tokenizer)


def test_taught_text_parses_back_to_the_example(tokenizer: Any) -> None:
    row = _row(harmful_example(), tokenizer)
    assert row.labels[-1] == end_token(tokenizer)
    taught = tokenizer.decode([label for label in row.labels[:-1] if label != IGNORED])
    parsed = parse(taught, default_policy())
    assert parsed.reasoning is not None
    assert parsed.reasoning.violated == ("R4",)
    assert parsed.answer == REFUSE_TEXT


def test_training_begins_where_generation_does(tokenizer: Any) -> None:
    """The decoder writes the opening itself: its tokens must be the ones that training has seen there."""
    formats: tuple[Format, ...] = ("think", "paper")
    for fmt in formats:
        row = _row(harmless_example(), tokenizer, fmt)
        opening = encode_completion(tokenizer, markers(fmt)[0] + "\n", end=False)
        served = [*encode_prompt(tokenizer, harmless_example().request.messages), *opening]
        assert list(row.input_ids[: len(served)]) == served


def test_cut_answer_teaches_no_end(tokenizer: Any) -> None:
    cut = harmless_example().model_copy(update={"answer_complete": False})
    row = _row(cut, tokenizer)
    assert row.input_ids[-1] != end_token(tokenizer)
    assert _taught(row, tokenizer).endswith(cut.answer)


def test_row_without_answer_ends_where_its_thought_closes(tokenizer: Any) -> None:
    row = _row(harmful_example().model_copy(update={"answer": "", "answer_complete": False}), tokenizer)
    assert _taught(row, tokenizer).rstrip().endswith("</think>")
    assert end_token(tokenizer) not in row.labels


def test_without_reasoning_the_answer_alone_is_taught(tokenizer: Any) -> None:
    row = _row(harmful_example(), tokenizer, reasoning=False)
    assert _taught(row, tokenizer) == REFUSE_TEXT + tokenizer.decode([end_token(tokenizer)])


def test_terms_are_told_apart(tokenizer: Any) -> None:
    assert TERMS[_row(harmful_example(), tokenizer).term] == "refusal"
    assert TERMS[_row(harmless_example(), tokenizer).term] == "benign"


def test_trap_1_padding_is_masked_and_bears_no_label() -> None:
    """Padding that is also the end token must not be taught, and the real end token must be."""
    rows = [
        {"input_ids": [5, 6, 2], "labels": [IGNORED, 6, 2], "term": 0},
        {"input_ids": [5, 6, 7, 8, 2], "labels": [IGNORED, IGNORED, 7, 8, 2], "term": 1},
    ]
    batch = collate(rows, pad_id=2)
    assert batch["input_ids"].tolist() == [[5, 6, 2, 2, 2], [5, 6, 7, 8, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 2, IGNORED, IGNORED], [IGNORED, IGNORED, 7, 8, 2]]
    assert batch["term"].tolist() == [0, 1]


def test_columns_that_some_rows_have_are_filled_for_the_others() -> None:
    rows = [
        TokenRow(input_ids=(5, 6, 2), labels=(IGNORED, 6, 2), term=0, weights=(1.0, 3.0, 1.0)),
        TokenRow(input_ids=(5, 7), labels=(IGNORED, 7), term=1, rivals=(IGNORED, 9)),
    ]
    batch = collate([row.model_dump() for row in rows], pad_id=0)
    # A token counts 1 where nothing is said, padding nothing; no rival where none is named.
    assert batch["weights"].tolist() == [[1.0, 3.0, 1.0], [1.0, 1.0, 0.0]]
    assert batch["rivals"].tolist() == [[IGNORED] * 3, [IGNORED, 9, IGNORED]]
    assert not {"weights", "rivals", "other_of"} & set(collate([{"input_ids": [5], "labels": [5], "term": 0}], 0))


def test_another_completion_may_have_a_prompt_and_rivals_of_its_own() -> None:
    other = TokenRow(input_ids=(8, 9), labels=(IGNORED, 9), term=0, rivals=(IGNORED, 4))
    rows = [
        TokenRow(input_ids=(5, 7), labels=(IGNORED, 7), term=1),
        with_other(TokenRow(input_ids=(5, 6, 2), labels=(IGNORED, 6, 2), term=0), other),
    ]
    batch = collate([row.model_dump() for row in rows], pad_id=0)
    assert batch["other_of"].tolist() == [1]
    assert batch["other_input_ids"].tolist() == [[8, 9]]
    assert batch["other_rivals"].tolist() == [[IGNORED, 4]]
    assert rows[1].tokens == 5
