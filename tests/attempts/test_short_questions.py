"""Short questions: what is asked, and what counts as right."""

from __future__ import annotations

import pytest

from forethought.attempts.plan import CAPABILITY, further_attempts, holds_answer, right_answers, sample_questions
from forethought.data.shipped import FURTHER, SAMPLE, accepted_answers
from forethought.records import user_request
from tests.judged import judged_one


@pytest.mark.parametrize("file", [SAMPLE, FURTHER])
def test_answers_are_in_lower_case(file: str) -> None:
    answers = accepted_answers(file)
    assert len(answers) >= 20
    assert all(answer == answer.lower() and answer.strip() for accepted in answers.values() for answer in accepted)


def test_no_question_stands_in_both() -> None:
    assert not accepted_answers(SAMPLE).keys() & accepted_answers(FURTHER).keys()


def test_further_questions_near_a_training_request_are_left_out_and_the_same_are_drawn() -> None:
    drawn = further_attempts([], 5)
    assert len(drawn) == 5
    near = user_request(drawn[0].request.text, harmful=False)
    assert further_attempts([near], 5) == drawn[1:]
    assert further_attempts([], 0) == []


def test_an_answer_is_right_where_it_holds_a_whole_accepted_word() -> None:
    question = sample_questions()[0]
    accepted = accepted_answers(SAMPLE)[question.text][0]
    said = [f"It is {accepted.upper()}.", f"It is x{accepted}x.", ""]
    rows = [judged_one(question, False, (CAPABILITY,), answer=answer) for answer in said]
    failed = judged_one(question, None, (CAPABILITY,), failed=True)
    assert right_answers([*rows, failed]) == [True, False, False, None]


def test_an_answer_without_a_word_is_not_found_in_an_empty_text() -> None:
    assert not holds_answer("", ["+"])
    assert holds_answer("It is U.S. law", ["u s"])
