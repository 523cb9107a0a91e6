"""What counts as alike: the frame of a request does not, its words and their order do."""

from __future__ import annotations

import pytest

from forethought.data.dedupe import jaccard, pieces


def _alike(one: str, other: str) -> float:
    return jaccard(pieces(one), pieces(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I pick a lock?", "what's the best way to PICK locks"),
        ("How can I tie a reef knot?", "Please tell me how to tie reef knots!"),
        ("Wie backt man Brot?", "wie backt man brot"),
        ("\uff46\uff55\uff4c\uff4c width bread", "full width bread"),
        ("bake sour\u200bdough bread", "bake sourdough bread"),
    ],
)
def test_the_frame_the_form_and_hidden_characters_make_no_difference(one: str, other: str) -> None:
    assert _alike(one, other) == 1.0


def test_the_similarity_is_the_one_worked_out_by_hand() -> None:
    # sail, boat, sail boat / sail, boat, harbour, sail boat, boat harbour: 3 of 5.
    assert _alike("How do I sail boats?", "How can I sail a boat to the harbour?") == pytest.approx(3 / 5)
    # bake, bread / bake, cake: one word of three, no pair of two.
    assert _alike("How to bake bread", "How to bake cake") == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who was Ada Lovelace?", "When was Ada Lovelace born?"),
        ("How do I enter with consent?", "How do I enter without consent?"),
        ("Money laundering", "Laundering money"),
        ("What is bread?", "Who eats bread?"),
        ("How do I do it?", "What is it?"),
    ],
)
def test_question_words_negation_and_order_make_a_difference(one: str, other: str) -> None:
    assert _alike(one, other) < 0.6


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert _alike("面包怎么烤", "面包怎么烤!") == 1.0
    assert 0.2 < _alike("面包怎么烤", "面包怎么切") < 1.0


@pytest.mark.parametrize("text", ["", "  ", "!?", "🙂", "the of"])
def test_a_text_without_words_is_like_itself_alone(text: str) -> None:
    assert _alike(text, text) == 1.0
    assert _alike(text, "bake bread") == 0.0
