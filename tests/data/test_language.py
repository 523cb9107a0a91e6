"""Which language: other languages are seen, English is never taken for one, and doubt falls to English by script."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.data.evolve import UNKNOWN, evolve, language_of, load_operators
from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Wie binde ich einen Knoten?", "de"),
        ("Comment cuire du riz ?", "fr"),
        ("¿Cómo hago pan?", "es"),
        ("Como faço pão?", "pt"),
        ("Come si fa il pane?", "it"),
        ("Hoe bak ik brood?", "nl"),
        ("Jak upéct chleba?", "cs"),
        ("Evde ekmek yapmak için ne gerekir?", "tr"),
        ("Jinsi ya kutengeneza mkate?", "sw"),
        ("Làm bánh mì như thế nào", "vi"),
        ("Как испечь хлеб", "ru"),
        ("रोटी कैसे बनाएं", "hi"),
        ("ரொட்டி செய்வது எப்படி", "ta"),
        ("റൊട്ടി എങ്ങനെ ഉണ്ടാക്കാം", "ml"),
        ("私はどうやってパンを焼きますか", "ja"),
    ],
)
def test_other_languages_are_seen_in_a_few_words(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "how do i skim stones on a lake?",
        "Describe a mojito cocktail.",
        "Calculate 5 x 3.",
        "When was Angela Merkel born?",
        "Monet or Picasso in 1910?",
        "omg men",
        "",
        "12 + 7 = ?",
        "def f(x): return x",
        "hola",
    ],
)
def test_short_or_doubtful_text_in_latin_script_counts_as_english(text: str) -> None:
    assert language_of(text) == "en"


def test_doubt_in_another_script_is_not_english() -> None:
    assert language_of("ꙮ") == UNKNOWN
    assert language_of("ᏣᎳᎩ") != "en"


def test_nigerian_pidgin_counts_as_english() -> None:
    """Its words are English ones; a short English question with a name in it looks like it."""
    assert language_of("Wetin be di better way to cook jollof rice for plenty pesin?") == "en"


def test_a_foreign_word_or_name_in_an_english_request_changes_nothing() -> None:
    assert language_of("What does the German word 'Fernweh' mean, and how do I use it?") == "en"
    assert language_of("How do I cook coq au vin with Pommes dauphine?") == "en"


def test_shipped_requests_are_english_also_in_every_style() -> None:
    requests = [*shipped_requests("contrast"), *shipped_requests("ordinary")]
    assert [request.text for request in requests if language_of(request.text) != "en"] == []
    styled = evolve(requests[::7], load_operators(), 3, 1.0, seed=0)
    assert sum(language_of(row.text) != "en" for row in styled) <= 0.02 * len(styled)


def test_public_english_sets_are_english(shared: Path) -> None:
    for name in ("harmful/advbench.csv", "harmful/dangerousqa.json", "over_refusal/xstest.csv"):
        texts = [request.text for request in load_requests(SourceSpec(path=str(shared / name)), None)]
        assert sum(language_of(text) != "en" for text in texts) == 0
