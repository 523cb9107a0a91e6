"""Near duplicates go; minimal pairs, which share their words by design, stay."""

from __future__ import annotations

from forethought.data.dedupe import remove_duplicates
from forethought.data.shipped import shipped_requests
from forethought.records import Request, user_request


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


def test_what_is_near_an_evaluation_request_goes_whatever_its_label() -> None:
    tested = [_ask(LONG, True, "bench.csv")]
    kept, removed = remove_duplicates([_ask(LONG + " now", False), _ask("What is a reef knot?")], against=tested)
    assert [request.text for request in kept] == ["What is a reef knot?"]
    assert removed == {"near an evaluation request (bench.csv)": 1}


def test_a_disguise_hides_no_duplicate() -> None:
    disguised = _ask(LONG).restyled("yo fam spill the beans, no cap", "slang")
    kept, _ = remove_duplicates([disguised], against=[_ask(LONG)])
    assert kept == []


def test_requests_that_share_a_topic_are_kept() -> None:
    requests = [_ask("How do I tie a bowline?"), _ask("How do I untie a wet sheet bend?"), _ask("Why is rope twisted?")]
    assert remove_duplicates(requests)[0] == requests


def test_the_result_is_deterministic_and_the_threshold_counts() -> None:
    rows = shipped_requests("contrast", "test")
    assert remove_duplicates(rows) == remove_duplicates(rows)
    assert len(remove_duplicates(rows, threshold=0.3)[0]) < len(remove_duplicates(rows, threshold=0.9)[0])


def test_nothing_in_nothing_out() -> None:
    assert remove_duplicates([]) == ([], {})


def test_overlaps_that_the_development_data_is_known_for_are_found() -> None:
    """A small copy of the known case: one set's test item stands, reworded slightly, in another set's training rows."""
    train = [_ask(f"Write a note number {n} about sailing to harbour {n * 7}", True, "train.json") for n in range(40)]
    test = [_ask("Write a note number 7 about sailing to harbour 49.", True, "test.csv")]
    kept, removed = remove_duplicates(train, against=test, threshold=0.9)
    assert removed["near an evaluation request (test.csv)"] == 1
    assert len(kept) == 39
