"""Question files in the shapes that public sets have them: what is asked, what is right, what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forethought.errors import InputError
from forethought.measure.capability.questions import (
    Question,
    QuestionSet,
    final_number,
    load_questions,
    numbered_columns,
    read_options,
)
from forethought.measure.capability.summary import sample_questions


def write_rows(folder: Path, rows: list[dict[str, Any]], name: str = "my-set.jsonl") -> str:
    file = folder / name
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(file)


def load(folder: Path, *rows: dict[str, Any]) -> QuestionSet:
    return load_questions(write_rows(folder, list(rows)))


FRUIT = ("apple", "bread", "stone")
SHAPES: list[dict[str, Any]] = [
    {"question": "Which is a fruit?", "options": "A. apple\nB. bread\nC. stone", "answer": "A. apple"},
    {"question": "Which is a fruit?", "options": "\n(A) apple\n(B) bread\n(C) stone", "answer": "A"},
    {"question": "Which is a fruit?", "choices": {"text": list(FRUIT), "label": ["1", "2", "3"]}, "answerKey": "1"},
    {"question_stem": "Which is a fruit?", "choices": list(FRUIT), "gold": 0},
    {"question": "Which is a fruit?", "choices": list(FRUIT), "answer": "Apple."},
    {"question": "Which is a fruit?", "choices": {"A": "apple", "B": "bread", "C": "stone"}, "answer": "A"},
    {"question": "Which is a fruit?", "mc1_targets": {"choices": list(FRUIT), "labels": [1, 0, 0]}},
    {"question": "Which is a fruit?", "choices": [{"text": t, "label": t[0]} for t in FRUIT], "answer": "a"},
    {"ctx": "Which is a fruit?", "endings": list(FRUIT), "label": "0"},
    {"question": "Which is a fruit?", "option_a": "apple", "option_b": "bread", "option_c": "stone", "answer": "A"},
    {"goal": "Which is a fruit?", "sol1": "apple", "sol2": "bread", "sol3": "stone", "label": 0},
]  # fmt: skip


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: ",".join(row))
def test_every_shape_of_options_is_the_same_question(tmp_path: Path, row: dict[str, Any]) -> None:
    found = load(tmp_path, row)
    assert found.kind == "choice"
    assert found.name == "my_set"
    (question,) = found.questions
    assert (question.text, question.choices, question.right) == ("Which is a fruit?", FRUIT, (0,))


def test_numbered_answers_count_from_where_the_whole_file_says(tmp_path: Path) -> None:
    def rows(*answers: Any) -> list[dict[str, Any]]:
        return [{"question": f"Question {n}?", "choices": list(FRUIT), "answer": a} for n, a in enumerate(answers)]

    assert [q.right for q in load(tmp_path, *rows(0, 2)).questions] == [(0,), (2,)]
    assert [q.right for q in load(tmp_path, *rows("1", "3")).questions] == [(0,), (2,)]
    with pytest.raises(InputError, match="counts from 0 or 1"):
        load(tmp_path, *rows(1, 2))


def test_an_answer_that_is_no_option_is_left_out_and_counted(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        {"question": "Good?", "options": "A. yes\nB. no", "answer": "B. no"},
        {"question": "Mislabelled?", "options": "A. yes\nB. no", "answer": "B. maybe"},
        {"question": "One option?", "options": "A. yes", "answer": "A"},
        {"question": "", "options": "A. yes\nB. no", "answer": "A"},
        {"question": "Good?", "options": "A. yes\nB. no", "answer": "B"},
    )
    assert [question.text for question in found.questions] == ["Good?"]
    assert found.left_out == {
        "an answer that is none of the options": 1,
        "no two options": 1,
        "no question": 1,
        "the same question again": 1,
    }


def test_an_option_over_two_lines_stays_one() -> None:
    options = read_options("A. first\ngoes on\nB. second")
    assert options is not None
    assert options.texts == ("first\ngoes on", "second")


def test_options_of_the_same_text_are_told_apart_by_letter_alone(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": "A. same\nB. same", "answer": "same"}
    with pytest.raises(InputError, match="none of the options"):
        load(tmp_path, row)
    assert load(tmp_path, row | {"answer": "B"}).questions[0].right == (1,)


def test_worked_answers_become_numbers_and_words_stay_words(tmp_path: Path) -> None:
    number = load(tmp_path, {"question": "How many?", "answer": "6 * 200 = 1,200\n#### $1,200."})
    assert number.kind == "number"
    assert number.questions[0].answers == ("1200", "6 * 200 = 1,200\n#### $1,200.")
    short = load(tmp_path, {"text": "Capital of France?", "accepted": ["Paris", "city of light"]})
    assert (short.kind, short.questions[0].answers) == ("short", ("Paris", "city of light"))
    long = load(
        tmp_path, {"instruction": "Explain.", "input": "bread", "output": "Flour, water, salt and yeast are mixed."}
    )
    assert (long.kind, long.questions[0].text) == ("open", "Explain.\n\nbread")
    passage = load(tmp_path, {"passage": "Tea is hot.", "question": "Is tea hot?", "answer": True})
    assert (passage.kind, passage.questions[0].text) == ("choice", "Tea is hot.\n\nIs tea hot?")
    assert (passage.questions[0].choices, passage.questions[0].right) == (("no", "yes"), (1,))


def test_instructions_keep_their_checks(tmp_path: Path) -> None:
    row = {"key": 1, "prompt": "Write.", "instruction_id_list": ["a:b"], "kwargs": [{"n": 3}]}
    found = load(tmp_path, row)
    assert found.kind == "instructions"
    assert (found.questions[0].checks, json.loads(found.questions[0].check_arguments)) == (("a:b",), [{"n": 3}])


@pytest.mark.parametrize(
    ("answer", "number"),
    [("#### 18", "18"), ("x\n#### -1,000", "-1000"), ("$5.50", "5.50"), ("about 5", None), ("#### five", None)],
)
def test_final_number(answer: str, number: str | None) -> None:
    assert final_number(answer) == number


def test_columns_can_be_named_and_wrong_names_are_errors(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [{"q": "Which?", "opts": ["a", "b"], "k": "B"}])
    with pytest.raises(InputError, match="no column reads like questions"):
        load_questions(path)
    found = load_questions(path, {"question": "q", "options": "opts", "answer": "k"})
    assert found.questions[0].right == (1,)
    with pytest.raises(InputError, match="no such column"):
        load_questions(path, {"question": "nowhere"})
    with pytest.raises(InputError, match="not something a question has"):
        load_questions(path, {"verdict": "q"})
    assert numbered_columns(["question", "A", "B", "C", "answer"]) == ("A", "B", "C")


def test_the_sample_keeps_the_shares_of_subjects_and_grows_with_its_limit() -> None:
    questions = [
        Question(text=f"Question {n}", choices=("a", "b"), right=(0,), group="maths" if n < 60 else "law")
        for n in range(80)
    ]
    ten = sample_questions(questions, 12, 0)
    assert sum(question.group == "maths" for question in ten) == 9
    assert sample_questions(questions, 40, 0)[:12] == ten
    assert sample_questions(list(reversed(questions)), 12, 0) == ten
    assert sample_questions(questions, 12, 1) != ten


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("mmlu_half", "choice", 1400), ("gsm8k_test_half", "number", 660), ("arc_challenge_train", "choice", 1000),
        ("piqa", "choice", 1500), ("openbookqa", "choice", 500), ("commonsense_qa", "choice", 1200),
        ("truthfulqa", "open", 817),
    ],
)  # fmt: skip
def test_public_files_are_read(shared: Path, name: str, kind: str, least: int) -> None:
    found = load_questions(str(shared / "capability" / f"{name}.jsonl"))
    assert found.kind == kind
    assert len(found.questions) >= least
