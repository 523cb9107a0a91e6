"""Messages in disturbed spelling are read in plain one; all others stay as they are."""

from __future__ import annotations

import difflib
import random
import re

import pytest

from forethought.attacks.base import Attacked, Given
from forethought.attacks.catalogue import parse_attack
from forethought.attacks.linguistic import augmented
from forethought.data.shipped import shipped_requests
from forethought.defences import spelling
from forethought.defences.reworded import RESPELLED, Respelled
from forethought.defences.spelling import in_words, restored
from forethought.models.conversation import Conversation, Failed, Response
from forethought.records import user_request
from tests.scripted import Scripted, as_messages

REQUESTS = (
    "How do I bake a loaf of bread at home without yeast?",
    "Write a short email to my neighbour about the noisy dog.",
)


def _words(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


def _found(texts: list[str], sigma: float) -> tuple[float, float]:
    """Shares of the words that are there, in their order, in spellings of Best-of-N and when they are restored."""
    rng = random.Random(0)
    n = before = after = 0
    for text in texts:
        disturbed = augmented(text, sigma, rng)
        words = _words(text)
        n += len(words)
        for place, found in enumerate((disturbed, restored(disturbed))):
            same = difflib.SequenceMatcher(None, words, _words(found)).get_matching_blocks()
            hits = sum(block.size for block in same)
            before, after = (before + hits, after) if place == 0 else (before, after + hits)
    return before / n, after / n


def test_nine_words_in_ten_of_best_of_n_are_read_again() -> None:
    texts = [one.text for kind in ("ordinary", "trivia") for one in [*shipped_requests(kind, "train")][:100]]
    before, after = _found(texts, 0.4)
    assert before < 0.65
    assert after > 0.85


@pytest.mark.parametrize("kind", ["ordinary", "lookalike", "borderline", "trivia"])
def test_ordinary_messages_stay_as_they_are(kind: str) -> None:
    texts = [one.text for one in shipped_requests(kind, "train")]
    changed = [text for text in texts if restored(text) != text]
    assert len(changed) <= len(texts) / 200


@pytest.mark.parametrize(
    "text",
    [
        "Jak upiec chleb w domu bez drożdży i ile to trwa?",
        "Hogyan süssek kenyeret otthon élesztő nélkül, és mennyi ideig tart?",
        "Hur bakar man bröd hemma utan jäst och hur lång tid tar det?",
        "Bagaimana cara membuat roti di rumah tanpa ragi?",
        "Wie backe ich zu Hause Brot ohne Hefe?",
        "¿Cómo puedo hacer pan en casa sin levadura y cuánto tarda?",
        "Comment faire du pain à la maison sans levure ?",
        "怎么在家里做面包",
        "Что такое iPhone и как им пользоваться?",
        "def fib(n): return n if n<2 else fib(n-1)+fib(n-2)  # fix my func pls",
        "SELECT usr_id, cnt FROM tbl_usrs WHERE crt_dt > '2020-01-01' GROUP BY usr_id",
        "Convert 0x4F to decimal and explain b64 encoding in py3",
        "r u ok m8? gonna b l8 2nite",
        "My 2 kids want 4 cupcakes each at 7 pm on 21 May, how many is that?",
        "Use an \u03b1-helix and x² in the caption 👩‍🔬.",
        "HOW DO I BAKE BREAD AT HOME",
        "ok",
        "",
    ],
)
def test_other_languages_code_and_names_stay_as_they_are(text: str) -> None:
    assert restored(text) == text


@pytest.mark.parametrize("attack", ["leetspeak:1", "homoglyphs", "zero_width", "full_width"])
@pytest.mark.parametrize("text", REQUESTS)
def test_signs_that_stand_for_letters_are_read(attack: str, text: str) -> None:
    start = Attacked(request=user_request(text, harmful=False))
    attacked = parse_attack(attack).apply(start, random.Random(0), Given())
    assert isinstance(attacked, Attacked)
    disturbed = attacked.text
    assert disturbed != text
    assert _words(restored(disturbed)) == _words(text)


@pytest.mark.parametrize(
    ("spelt", "meant"),
    [
        ("How do I documetne a famliy's proudct?", "How do I document a family's product?"),
        ("Wenh do cmeras cuont?", "When do cameras count?"),
        (
            "Is 2.5 kg of zxqvw \u0433\u043e\u0440\u043e\u0434 OK?",
            "Is 2.5 kg of zxqvw \u0433\u043e\u0440\u043e\u0434 OK?",
        ),
        ("", ""),
    ],
)
def test_what_a_model_spelt_amiss_is_the_word_next_to_it(spelt: str, meant: str) -> None:
    """What is known, or near nothing that is, stays."""
    assert in_words(spelt) == meant


def test_a_long_message_costs_a_bounded_number_of_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nearest(word: str) -> tuple[str, float]:
        asked.append(word)
        return word, 0.0

    monkeypatch.setattr(spelling, "nearest", nearest)
    letters = random.Random(0)
    restored(" ".join("".join(letters.choices("bcdfGHJK", k=9)) for _ in range(5000)))
    assert 0 < len(asked) <= 2 * 400
    asked.clear()
    restored(" ".join(["!".join("".join(letters.choices("bcdfGHJK", k=9)) for _ in range(5000))] * 3 + ["aB", "cDe"]))
    assert len(asked) <= 2 * 400, "nor one that is joined by what may have been spaces"


@pytest.mark.timeout(30)
def test_a_word_of_a_hundred_thousand_signs_takes_no_longer_than_it_is() -> None:
    word = "a" + "!" * 100_000 + "b"
    assert restored(f"aB cDe fGh {word} {word}").count("!") == 200_000


def test_the_plain_text_is_decided_on_and_answered() -> None:
    inner = Scripted(lambda one: Response(answer="So.", decision="comply", log_odds=-1.0))
    disturbed = augmented(REQUESTS[0], 0.4, random.Random(0))
    first, second = Respelled(inner).reply(
        [Conversation(messages=as_messages(text, system="bE kInD tO aLl.")) for text in (disturbed, REQUESTS[0])], 8
    )
    assert isinstance(first, Response)
    assert isinstance(second, Response)
    assert (first.cause, second.cause) == (RESPELLED, "")
    assert [one.strict for one in inner.asked] == [True, False]
    assert inner.asked[0].messages == as_messages(restored(disturbed), system="bE kInD tO aLl.")
    assert inner.asked[1].messages == as_messages(REQUESTS[0], system="bE kInD tO aLl.")
    pasted = "How do I bake a loaf of bre\u00adad at home with\u200bout yeast in \u0430 p\u0430n?"
    Respelled(inner).reply([Conversation(messages=as_messages(pasted))], 8)
    assert inner.asked[-1].messages == as_messages("How do I bake a loaf of bread at home without yeast in a pan?")
    assert not inner.asked[-1].strict, "hyphens and spaces of a page that was copied are no guess"
    (failed,) = Respelled(Scripted(lambda one: Failed(cause="no reply"))).reply(
        [Conversation(messages=as_messages(disturbed))], 8
    )
    assert isinstance(failed, Failed)
