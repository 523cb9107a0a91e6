"""The search misses nothing that comparing all pairs finds."""

from __future__ import annotations

import logging
import random

import pytest

from forethought.data.dedupe import (
    CONTAINED,
    CONTAINED_WORDS,
    How,
    Neighbour,
    Neighbourhood,
    Pieces,
    jaccard,
    near,
    pieces,
)

_WORDS = ["anchor", "bread", "candle", "drum", "engine", "flute", "garden", "hammer", "island", "jacket", "kettle"]


def _texts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(_WORDS, k=rng.randint(1, 14))) for _ in range(count)]
    # Copies with a word changed or words around them: near and contained ones, not only far ones.
    for text in texts[: count // 2]:
        words = text.split()
        words[rng.randrange(len(words))] = rng.choice(_WORDS)
        texts.append(" ".join(words))
        texts.append(" ".join([*rng.choices(_WORDS, k=8), text, *rng.choices(_WORDS, k=8)]))
    return texts


def _held(short: Pieces, long: Pieces) -> float:
    """Share of the short one's word pairs in the long one, by its definition."""
    if len(short.words) < CONTAINED_WORDS or len(short.pairs) > len(long.pairs):
        return 0.0
    return len(short.pairs & long.pairs) / len(short.pairs)


def _by_all_pairs(one: Pieces, stored: list[Pieces], threshold: float) -> list[Neighbour]:
    found: list[tuple[tuple[int, float, str, int], Neighbour]] = []
    for number, other in enumerate(stored):
        held = max(_held(one, other), _held(other, one))
        if jaccard(one, other) >= threshold:
            how: How = "exact" if one.wording == other.wording else "near"
            similarity = jaccard(one, other)
            found.append(((0, -similarity, how, number), Neighbour(number, similarity, how)))
        elif held >= CONTAINED:
            found.append(((1, -held, "contained", number), Neighbour(number, held, "contained")))
    return [neighbour for _, neighbour in sorted(found)]


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.75, 0.9, 1.0])
def test_what_all_pairs_find_is_found(threshold: float) -> None:
    stored = [pieces(text) for text in _texts(1, 120)]
    searched = [pieces(text) for text in _texts(2, 60)] + stored[:60]
    found = near(searched, stored, threshold)
    assert found == [_by_all_pairs(one, stored, threshold) for one in searched]
    hows = {neighbour.how for row in found for neighbour in row}
    assert hows == ({"exact", "contained", "near"} if threshold < 1 else {"exact", "contained"})
    index = Neighbourhood(stored, threshold)
    assert [index.similar(one) for one in searched] == [[n for n in row if n.how != "contained"] for row in found]


def test_the_most_similar_comes_first_and_the_same_words_are_exact() -> None:
    index = Neighbourhood([pieces(t) for t in ("bake dark bread slowly", "how to bake dark bread", "Bake bread!")], 0.2)
    # bake, dark, bread, bake dark, dark bread; the first has slowly and bread slowly besides: 5 of 7.
    # Of the last, bake and bread are shared; bake bread is its own: 2 of 6.
    assert index.similar(pieces("BAKE dark bread")) == [
        Neighbour(1, 1.0, "near"),
        Neighbour(0, 5 / 7, "near"),
        Neighbour(2, 2 / 6, "near"),
    ]
    assert index.similar(pieces("bake bread"))[0] == Neighbour(2, 1.0, "exact")


def test_a_similarity_of_just_the_threshold_counts() -> None:
    # sail, boat, sail boat / sail, boat, harbour, sail boat, boat harbour: 3 of 5.
    stored = [pieces("sail a boat to the harbour")]
    assert [n.similarity for n in Neighbourhood(stored, 0.6).similar(pieces("sail boats"))] == [0.6]
    assert Neighbourhood(stored, 0.61).similar(pieces("sail boats")) == []


SHORT = "Write a poem about sailing boats across the northern sea"
STORY = f"You are an old captain who talks to his crew at night. {SHORT}. Sign it with your name and the date."


@pytest.mark.parametrize(("one", "other"), [(SHORT, STORY), (STORY, SHORT)])
def test_a_request_inside_a_story_is_found_in_both_directions(one: str, other: str) -> None:
    assert near([pieces(one)], [pieces("bake bread"), pieces(other)], 0.6) == [[Neighbour(1, 1.0, "contained")]]


def test_containment_needs_enough_words_and_their_order() -> None:
    shuffled = "The sea has a boat, and across it a poem of the north was read by writers who went sailing."
    assert near([pieces(SHORT)], [pieces(shuffled)], 0.6) == [[]]
    few = "bake dark bread without any yeast"
    assert len(pieces(few).words) == CONTAINED_WORDS - 1
    frame = "An old captain at sea asks his crew at night: {}? They laugh, sing and drink until the sun rises."
    assert near([pieces(few)], [pieces(frame.format(few))], 0.6) == [[]]
    enough = few + " today"
    assert near([pieces(enough)], [pieces(frame.format(enough))], 0.6) == [[Neighbour(0, 1.0, "contained")]]


def test_the_longer_one_is_never_inside_the_shorter() -> None:
    # Five pairs, four of them in the other's: a share of .8, yet the other has but four.
    long, short = (pieces(f"anchor bread candle drum engine {end}") for end in ("flute", ""))
    assert (len(long.pairs), len(short.pairs), len(short.words)) == (5, 4, CONTAINED_WORDS - 1)
    assert near([long], [short], 0.9) == near([short], [long], 0.9) == [[]]


def test_nothing_is_near_nothing() -> None:
    assert near([], [pieces("bake bread")], 0.6) == []
    assert near([pieces("bake bread"), pieces("")], [], 0.6) == [[], []]
    assert near([pieces("")], [pieces("bake bread"), pieces("")], 0.6) == [[Neighbour(1, 1.0, "exact")]]


def test_the_search_sets_up_no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    near([pieces(SHORT)], [pieces(STORY)], 0.6)
    assert logging.root.handlers == []
