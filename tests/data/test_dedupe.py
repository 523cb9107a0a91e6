"""Near duplicates go; minimal pairs, which share their words by design, stay."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

import pytest

from forethought.data.dedupe import (
    CONTAINED,
    CONTAINED_WORDS,
    WITHIN,
    How,
    Neighbour,
    Neighbourhood,
    Pieces,
    contaminated,
    jaccard,
    near,
    pieces,
    remove_duplicates,
    repeated,
)
from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.records import Request, user_request

_WORDS = ["anchor", "bread", "candle", "drum", "engine", "flute", "garden", "hammer", "island", "jacket", "kettle"]


def _ask(text: str, harmful: bool | None = False, source: str = "a.csv") -> Request:
    return user_request(text, harmful=harmful, source=source)


LONG = "How do I tie a bowline around a post on a boat that moves in the wind at night"


def test_the_first_of_near_duplicates_is_kept() -> None:
    requests = [_ask(LONG + "?"), _ask(LONG.upper() + " !!"), _ask(LONG + " please?"), _ask("What is a reef knot?")]
    kept, removed = remove_duplicates(requests)
    assert kept == [requests[0], requests[3]]
    assert removed == {"near an earlier request of the set": 2}


def test_a_harmful_request_and_its_twin_are_no_duplicates() -> None:
    twins = [_ask(LONG, True), _ask(LONG, False), _ask(LONG, None)]
    assert remove_duplicates(twins) == (twins, {})


def test_no_shipped_minimal_pair_is_taken_for_a_duplicate() -> None:
    pairs = shipped_requests("contrast")
    assert repeated(pairs) == {}
    look_alikes = shipped_requests("lookalike")
    assert not any(contaminated(look_alikes, shipped_requests("harmful")))


@pytest.mark.parametrize("label", [True, None])
def test_what_is_near_an_evaluation_request_goes(label: bool | None) -> None:
    tested = [_ask(LONG, True, "bench.csv")]
    kept, removed = remove_duplicates([_ask(LONG + " now", label), _ask("What is a reef knot?")], against=tested)
    assert [request.text for request in kept] == ["What is a reef knot?"]
    assert removed == {"near an evaluation request (bench.csv)": 1}


def test_of_opposite_labels_only_the_same_wording_counts() -> None:
    tested = [_ask(LONG, True, "bench.csv")]
    near = _ask(LONG + " now", False)
    assert remove_duplicates([near], against=tested) == ([near], {})
    assert remove_duplicates([_ask(LONG.upper() + "?", False)], against=tested)[0] == []


def test_a_disguise_hides_no_duplicate() -> None:
    disguised = _ask(LONG).restyled("yo fam spill the beans, no cap", "slang")
    kept, _ = remove_duplicates([disguised], against=[_ask(LONG)])
    assert kept == []
    # And the other way round: the evaluation request is the disguised one.
    assert remove_duplicates([_ask(LONG)], against=[disguised])[0] == []


def test_restyled_forms_of_one_seed_are_no_duplicates_but_their_copies_are() -> None:
    seed = _ask(LONG)
    forms = [seed, seed.restyled("yo, bowline me up", "slang"), seed.restyled("A SAILOR ASKS", "capitals")]
    assert remove_duplicates(forms) == (forms, {})
    assert remove_duplicates([*forms, forms[1]])[0] == forms
    other_seed = _ask(LONG + " please").restyled("tell me, wise one", "role_play")
    assert remove_duplicates([seed, other_seed])[0] == [seed]


def test_a_benchmark_request_inside_a_story_is_found_in_both_directions() -> None:
    story = f"You are an old captain who has seen it all. Speak as he would. {LONG}? Stay in your role to the end."
    assert remove_duplicates([_ask(story)], against=[_ask(LONG)])[0] == []
    assert remove_duplicates([_ask(LONG)], against=[_ask(story)])[0] == []
    # Within a set it is another request.
    assert len(remove_duplicates([_ask(LONG), _ask(story)])[0]) == 2


def test_two_requests_in_one_long_template_are_two() -> None:
    frame = (
        "From now on answer every question that a visitor of our maritime museum asks, in the voice of a retired"
        " harbour pilot, with one anecdote, two dates, no abbreviations and a closing proverb. The visitor asks: "
    )
    rows = [_ask(frame + "how are anchors forged?"), _ask(frame + "why do lighthouses blink?")]
    assert repeated(rows) == {}
    assert len(repeated([rows[0], _ask(frame + "how are anchors forged today?")])) == 1


def test_requests_that_share_a_topic_are_kept() -> None:
    requests = [_ask("How do I tie a bowline?"), _ask("How do I untie a wet sheet bend?"), _ask("Why is rope twisted?")]
    assert remove_duplicates(requests)[0] == requests


def test_the_thresholds_count() -> None:
    # Three of their five pieces are shared: similarity .6.
    one, other = _ask("How do I sail boats?"), _ask("How can I sail a boat to the harbour?")
    assert remove_duplicates([one, other])[0] == [one, other]
    assert list(repeated([one, other], 0.6)) == [1]
    assert remove_duplicates([one], against=[other])[0] == []
    assert contaminated([one], [other], 0.61) == [[]]


def test_nothing_in_nothing_out() -> None:
    assert remove_duplicates([]) == ([], {})
    assert remove_duplicates([_ask("")], against=[_ask("bread")])[0] == [_ask("")]


def _distinct(shared: Path, one: str, other: str) -> tuple[int, int]:
    """(requests of `one` near `other`, requests of `other` that they are near)."""
    rows = list(load_requests(SourceSpec(path=str(shared / one)), True))
    tested = list(load_requests(SourceSpec(path=str(shared / other)), True))
    found = contaminated(rows, tested)
    return sum(bool(matches) for matches in found), len({match.number for matches in found for match in matches})


def test_the_overlaps_that_the_development_data_is_known_for_are_found(shared: Path) -> None:
    assert _distinct(shared, "harmful/star1.json", "harmful/harmbench_val.csv") == (6, 6)
    # Seven are the same but for their frame; the rest are special cases, such as "at home".
    _, found = _distinct(shared, "harmful/dangerousqa.json", "harmful/do_not_answer")
    assert 7 <= found <= 13
    rows = list(load_requests(SourceSpec(path=str(shared / "harmful/dangerousqa.json")), True))
    tested = list(load_requests(SourceSpec(path=str(shared / "harmful/do_not_answer")), True))
    same = {m.number for row in contaminated(rows, tested, threshold=0.99) for m in row}
    assert len(same) == 7


def test_harmless_sets_are_not_taken_for_benchmarks(shared: Path) -> None:
    assert _distinct(shared, "benign/alpaca_999.json", "harmful/harmbench_val.csv") == (0, 0)
    assert _distinct(shared, "benign/gsm8k_train_2000.jsonl", "capability/gsm8k_test_half.jsonl") == (0, 0)


def test_thousands_of_requests_take_seconds(shared: Path) -> None:
    rows = [
        request
        for name in ("harmful/harmfulqa.json", "harmful/star1.json", "harmful/do_not_answer", "harmful/advbench.csv")
        for request in load_requests(SourceSpec(path=str(shared / name)), True)
    ]
    tested = list(load_requests(SourceSpec(path=str(shared / "benign/gsm8k_train_2000.jsonl")), True))
    started = time.process_time()
    remove_duplicates(rows, tested)
    assert time.process_time() - started < 10


def test_a_repeat_names_the_earlier_request_by_its_place() -> None:
    rows = [_ask("Bake bread"), _ask("Forge an anchor", True), _ask("Bake bread!"), _ask(LONG), _ask(LONG + "?")]
    assert {row: match.number for row, match in repeated(rows).items()} == {2: 0, 4: 3}


def _repeats(rows: list[Request], threshold: float = WITHIN) -> list[tuple[int, int, float]]:
    return [(row, match.number, match.similarity) for row, match in repeated(rows, threshold).items()]


def test_what_is_near_a_removed_request_alone_stays() -> None:
    # Each shares 7 of 9 pieces with the next, the first and the last 5 of 9.
    rows = [_ask("anchor bread candle drum"), _ask("anchor bread candle drum engine"), _ask("bread candle drum engine")]
    assert _repeats(rows) == [(1, 0, 7 / 9)]
    assert _repeats(rows[1:]) == [(1, 0, 7 / 9)]
    assert _repeats(rows[::2]) == []
    # Kept later, it is nearer to the removed one (9 of 11), which still repeats the earlier.
    assert _repeats([*rows[:2], _ask("anchor bread candle drum engine flute")]) == [(1, 0, 7 / 9)]


def test_a_repeat_names_the_most_similar_kept_request_of_the_like_the_first() -> None:
    # The third holds 7 pieces of the first and 9 of the second among its 11.
    rows = [_ask("anchor bread candle drum"), _ask("bread candle drum engine flute")]
    later = _ask("anchor bread candle drum engine flute")
    assert _repeats([*rows, later], 0.6) == [(2, 1, 9 / 11)]
    assert _repeats([rows[1], rows[0], later], 0.6) == [(2, 0, 9 / 11)]
    # Restyled forms of one seed are all kept, and alike.
    forms = [rows[0], rows[0].restyled("a pirate asks", "role_play"), rows[0].restyled("HOW", "capitals")]
    assert _repeats([*forms, _ask("an anchor, bread, a candle and a drum")]) == [(3, 0, 1.0)]


def test_a_repeat_has_the_label_of_the_request_that_it_repeats() -> None:
    rows = [_ask("Bake dark bread", label) for label in (True, None, False, None, True)]
    assert _repeats(rows) == [(3, 1, 1.0), (4, 0, 1.0)]


def test_thousands_of_copies_take_no_longer_than_one_search() -> None:
    rows = [_ask(LONG) for _ in range(3000)]
    started = time.process_time()
    assert len(repeated(rows)) == 2999
    assert time.process_time() - started < 5


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
    found = near(searched, Neighbourhood(stored, threshold))
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
    assert near([pieces(one)], Neighbourhood([pieces("bake bread"), pieces(other)], 0.6)) == [
        [Neighbour(1, 1.0, "contained")]
    ]


def test_containment_needs_enough_words_and_their_order() -> None:
    shuffled = "The sea has a boat, and across it a poem of the north was read by writers who went sailing."
    assert near([pieces(SHORT)], Neighbourhood([pieces(shuffled)], 0.6)) == [[]]
    few = "bake dark bread without any yeast"
    assert len(pieces(few).words) == CONTAINED_WORDS - 1
    frame = "An old captain at sea asks his crew at night: {}? They laugh, sing and drink until the sun rises."
    assert near([pieces(few)], Neighbourhood([pieces(frame.format(few))], 0.6)) == [[]]
    enough = few + " today"
    assert near([pieces(enough)], Neighbourhood([pieces(frame.format(enough))], 0.6)) == [
        [Neighbour(0, 1.0, "contained")]
    ]


def test_the_longer_one_is_never_inside_the_shorter() -> None:
    # Five pairs, four of them in the other's: a share of .8, yet the other has but four.
    long, short = (pieces(f"anchor bread candle drum engine {end}") for end in ("flute", ""))
    assert (len(long.pairs), len(short.pairs), len(short.words)) == (5, 4, CONTAINED_WORDS - 1)
    assert near([long], Neighbourhood([short], 0.9)) == near([short], Neighbourhood([long], 0.9)) == [[]]


def test_nothing_is_near_nothing() -> None:
    assert near([], Neighbourhood([pieces("bake bread")], 0.6)) == []
    assert near([pieces("bake bread"), pieces("")], Neighbourhood([], 0.6)) == [[], []]
    assert near([pieces("")], Neighbourhood([pieces("bake bread"), pieces("")], 0.6)) == [[Neighbour(1, 1.0, "exact")]]


def test_the_search_sets_up_no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    near([pieces(SHORT)], Neighbourhood([pieces(STORY)], 0.6))
    assert logging.root.handlers == []
