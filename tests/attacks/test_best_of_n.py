"""Best-of-N: each change has the paper's probability, touches what it may and nothing else, and N is kept."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from forethought.attacks.linguistic import augmented, noised, recased, scrambled
from forethought.attacks.searches.base import parse_method
from tests.attacks.searching import goal, one, run, target

BEST_OF_N = parse_method("best_of_n")

TEXT = "How do gardeners plant tulips before the winter comes"


def near(share: float, expected: float, n: int) -> bool:
    """Within four standard errors."""
    return abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_the_defaults_are_the_papers() -> None:
    assert BEST_OF_N.options["n"] == BEST_OF_N.queries == 10_000
    assert BEST_OF_N.options["sigma"] == 0.4


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.0])
def test_words_are_scrambled_inside_with_the_root_of_sigma(sigma: float) -> None:
    rng, n = random.Random(1), 4000
    made = [scrambled("the abcdefghij", sigma, rng).split() for _ in range(n)]
    assert all(short == "the" for short, _ in made)
    assert all(word[0] + word[-1] == "aj" and sorted(word) == sorted("abcdefghij") for _, word in made)
    # A shuffle of eight leaves the word as it is once in 40,320 times.
    share = sum(word != "abcdefghij" for _, word in made) / n
    assert share == sigma if sigma in (0, 1) else near(share, sigma**0.5, n)


def test_a_shuffle_is_uniform() -> None:
    rng = random.Random(2)
    counts = Counter(scrambled("xabcx", 1.0, rng) for _ in range(6000))
    assert len(counts) == 6
    assert all(near(count / 6000, 1 / 6, 6000) for count in counts.values())


def test_words_of_three_stay_and_words_of_four_swap_their_middle() -> None:
    assert scrambled("abc", 1.0, random.Random(0)) == "abc"
    assert {scrambled("abcd", 1.0, random.Random(seed)) for seed in range(20)} == {"abcd", "acbd"}


def test_the_case_of_letters_is_turned_with_the_root_of_sigma_and_nothing_else_changes() -> None:
    text = "aB" * 3000 + "1 ?" + "\u00e9\u00df\u0416"
    made = recased(text, 0.4, random.Random(3))
    assert made.lower() == text.lower()
    assert made.endswith("1 ?\u00e9\u00df\u0416")
    for start in (0, 1):
        turned = sum(a != b for a, b in zip(text[start:6000:2], made[start:6000:2], strict=True))
        assert near(turned / 3000, 0.4**0.5, 3000)
    assert recased("aB", 1.0, random.Random(0)) == "Ab"
    assert recased("aB", 0.0, random.Random(0)) == "aB"


def test_signs_are_disturbed_with_sigma_cubed_by_one_place_either_way() -> None:
    text, n = "m" * 20_000, 20_000
    made = Counter(noised(text, 0.4, random.Random(4)))
    assert set(made) == {"l", "m", "n"}
    assert near((made["l"] + made["n"]) / n, 0.4**3, n)
    assert near(made["l"] / (made["l"] + made["n"]), 0.5, made["l"] + made["n"])


def test_signs_stay_printable_ascii() -> None:
    assert set(noised(" ~" * 200, 1.0, random.Random(5))) == {" ", "!", "}", "~"}
    assert set(noised("!" * 50, 1.0, random.Random(5))) == {" ", '"'}
    assert noised("\n\t\u00e9\u0416", 1.0, random.Random(6)) == "\n\t\u00e9\u0416"


def test_all_three_changes_are_applied() -> None:
    made = [augmented(TEXT, 0.4, random.Random(seed)) for seed in range(50)]
    assert len(set(made)) == 50
    assert all(len(one) == len(TEXT) for one in made)
    assert augmented(TEXT, 0.0, random.Random(0)) == TEXT


def test_it_asks_n_variants_in_batches_and_ends_with_a_success(tmp_path: Path) -> None:
    its = goal(TEXT)
    on = target()
    outcome = one(run(parse_method("best_of_n:n=11,batch=4"), its, on, tmp_path / "a"))
    assert ([len(call) for call in on.calls], outcome.queries, outcome.ended) == ([4, 4, 3], 11, "end")
    texts = [conversation.messages[-1].content for conversation in on.asked]
    assert len(set(texts)) == 11
    through = target(texts[5])
    found = one(run(parse_method("best_of_n:n=11,batch=4"), its, through, tmp_path / "b"))
    assert (found.first_success, found.queries) == (6, 8)
    assert found.best is not None
    assert (found.best.text, found.best.request.plain, found.best.lineage) == (texts[5], TEXT, ("best_of_n",))
