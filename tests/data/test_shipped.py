"""The shipped sets: enough of them, well formed, and no held-out scenario trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from forethought.data.dedupe import decontaminate, known_evaluation_sets, pieces, remove_duplicates
from forethought.data.shipped import RULE_EXAMPLE, _rows, shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import ConfigError
from forethought.policy import default_policy
from forethought.records import Request, Split

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
SETS = ("harmful", "lookalike", "contrast", "ordinary")


def test_there_are_at_least_300_pairs_over_all_rules() -> None:
    harmful, lookalike = shipped_requests("harmful"), shipped_requests("lookalike")
    assert len(harmful) == len(lookalike) >= 300
    by_rule = Counter(request.rules[0] for request in harmful)
    assert set(by_rule) == set(default_policy().rule_ids)
    assert min(by_rule.values()) >= 15


def test_there_are_at_least_300_ordinary_requests_of_everyday_tasks() -> None:
    ordinary = shipped_requests("ordinary")
    assert len(ordinary) >= 300
    tasks = Counter(request.categories[0] for request in ordinary)
    assert len(tasks) >= 6
    assert {request.kind for request in ordinary} == {"ordinary"}
    assert {request.twin for request in ordinary} == {""}


def test_requests_are_labelled_and_stand_once() -> None:
    everything = [*shipped_requests("contrast"), *shipped_requests("ordinary")]
    assert {request.harmful for request in shipped_requests("harmful")} == {True}
    assert {request.harmful for name in ("lookalike", "ordinary") for request in shipped_requests(name)} == {False}
    assert all(request.text.strip() == request.text != "" for request in everything)
    assert len({request.id for request in everything}) == len(everything)
    assert all(request.family and request.source == "shipped" for request in everything)
    assert all(len(request.text.split()) <= 60 for request in everything)


def _pairs() -> list[tuple[Request, Request]]:
    by_twin: dict[str, list[Request]] = defaultdict(list)
    for request in shipped_requests("contrast"):
        by_twin[request.twin].append(request)
    assert all(len(pair) == 2 for pair in by_twin.values())
    return [(pair[0], pair[1]) for pair in by_twin.values()]


def test_a_pair_is_one_harmful_and_one_harmless_request_of_one_family() -> None:
    for harmful, harmless in _pairs():
        assert (harmful.harmful, harmless.harmful) == (True, False)
        assert harmful.family == harmless.family


def test_twins_share_words() -> None:
    """Else the words alone would tell them apart, and the pair would teach nothing about intent."""

    def words(request: Request) -> set[str]:
        return {word.strip(".,?!'\"").lower() for word in request.text.split()}

    overlaps = [len(words(a) & words(b)) / min(len(words(a)), len(words(b))) for a, b in _pairs()]
    assert sum(overlaps) / len(overlaps) > 0.4
    assert min(overlaps) > 0


@pytest.mark.parametrize("name", SETS)
def test_splits_are_a_partition(name: str) -> None:
    parts = [request for split in SPLITS for request in shipped_requests(name, split)]
    assert Counter(request.id for request in parts) == Counter(request.id for request in shipped_requests(name))
    assert all(shipped_requests(name, split) for split in SPLITS)


def test_families_never_cross_splits() -> None:
    families = {
        split: {request.family for name in ("contrast", "ordinary") for request in shipped_requests(name, split)}
        for split in SPLITS
    }
    assert not families["train"] & families["test"]
    assert not families["train"] & families["dev"]
    assert not families["dev"] & families["test"]


@pytest.mark.parametrize("split", SPLITS)
def test_every_rule_stands_in_every_split(split: Split) -> None:
    assert {request.rules[0] for request in shipped_requests("harmful", split)} == set(default_policy().rule_ids)


def test_broad_requests_are_of_many_kinds_and_near_no_evaluation_set() -> None:
    """A threshold rests on their development part, and a probe on the rest."""
    train, dev = shipped_requests("broad", "train"), shipped_requests("broad", "dev")
    assert {r.id for r in (*train, *dev)} == {r.id for r in shipped_requests("broad")}
    assert len(train) + len(dev) >= 440
    assert not {r.family for r in train} & {r.family for r in dev}
    kinds = Counter(request.categories[0] for request in train)
    assert len(kinds) >= 12
    assert kinds == Counter(request.categories[0] for request in train if request.harmful is False)
    assert max(len(request.text.split()) for request in train) > 100
    kept, report = decontaminate([*train, *dev], known_evaluation_sets())
    assert len(kept) == len(train) + len(dev), report


def test_borderline_requests_are_look_alikes_of_many_kinds_and_near_no_evaluation_set() -> None:
    train, dev = shipped_requests("borderline", "train"), shipped_requests("borderline", "dev")
    assert not {r.family for r in train} & {r.family for r in dev}
    assert len(train) + len(dev) == len(shipped_requests("borderline")) >= 400
    assert {(row.kind, row.harmful, row.twin) for row in (*train, *dev)} == {("lookalike", False, "")}
    assert len({row.categories for row in train}) >= 15
    kept, report = decontaminate([*train, *dev], known_evaluation_sets())
    assert len(kept) == len(train) + len(dev), report


@pytest.mark.parametrize(("name", "least"), [("borderline_pairs", 1_400), ("plain_pairs", 3_500)])
def test_pairs_share_their_words_and_are_near_no_evaluation_set(name: str, least: int) -> None:
    train, dev = shipped_requests(name, "train"), shipped_requests(name, "dev")
    assert not {row.family for row in train} & {row.family for row in dev}
    assert len({row.id for row in (*train, *dev)}) == len(shipped_requests(name)) >= least
    assert {row.family for row in (*train, *dev)}.isdisjoint(row.family for row in shipped_requests("borderline"))
    pairs = defaultdict[str, list[Request]](list)
    for row in (*train, *dev):
        pairs[row.twin].append(row)
    assert {tuple(sorted(row.kind for row in pair)) for pair in pairs.values()} == {("harmful", "lookalike")}
    shared = [pieces(one.text).words & pieces(other.text).words for one, other in pairs.values()]
    assert sum(map(bool, shared)) >= 0.95 * len(shared)
    lengths = [sum(len(row.text.split()) for row in (*train, *dev) if row.harmful is side) for side in (True, False)]
    assert 0.9 < lengths[0] / lengths[1] < 1.1, "one side is told by its length"
    others = [one for one in ("borderline", "borderline_pairs", "plain_pairs") if one != name]
    known = known_evaluation_sets() | {one: shipped_requests(one) for one in others}
    kept, report = decontaminate([*train, *dev], known)
    assert len(kept) == len(train) + len(dev), report


def test_an_unknown_set_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="no such shipped set") as caught:
        shipped_requests("nope")
    assert "ordinary" in caught.value.fix
    assert "calibration" in caught.value.fix


def test_there_are_at_least_60_rule_examples_a_rule_each_once() -> None:
    examples = shipped_requests("rules")
    by_rule = Counter(request.rules for request in examples)
    assert set(by_rule) == {(rule,) for rule in default_policy().rule_ids}
    assert min(by_rule.values()) >= 60
    assert len({request.id for request in examples}) == len(examples)
    assert all(request.text.strip() == request.text != "" for request in examples)
    assert max(len(request.text.split()) for request in examples) <= 25


def test_rule_examples_are_for_training_alone_and_can_be_left_out_by_their_category() -> None:
    assert shipped_requests("rules", "train") == shipped_requests("rules") == shipped_requests("rules")
    assert shipped_requests("rules", "dev") == shipped_requests("rules", "test") == []
    assert {request.categories for request in shipped_requests("rules")} == {(RULE_EXAMPLE,)}


def test_rule_examples_stand_in_no_shipped_set() -> None:
    ids = {request.id for request in shipped_requests("rules")}
    assert not any(request.id in ids for name in SETS for request in shipped_requests(name))
    assert {request.source for request in shipped_requests("rules")} == {"shipped rule examples"}


def test_no_rule_example_is_near_a_shipped_request_or_another_one() -> None:
    kept, removed = remove_duplicates(shipped_requests("rules"), shipped_requests("contrast"))
    assert (len(kept), dict(removed)) == (len(shipped_requests("rules")), {})


def test_no_rule_example_is_near_a_public_request(shared: Path) -> None:
    """Else what the classifier scores on those sets would be memory."""
    sets = (
        "star1.json",
        "advbench.csv",
        "harmbench_val.csv",
        "malicious_instruct.txt",
        "do_not_answer",
        "dangerousqa.json",
    )
    public = [
        request for name in sets for request in load_requests(SourceSpec(path=str(shared / "harmful" / name)), True)
    ]
    assert len(public) > 2500
    assert dict(remove_duplicates(shipped_requests("rules"), public)[1]) == {}


def test_calibration_requests_are_ordinary_ones_of_a_scenario_each() -> None:
    """Requests of one scenario are not independent, and the bound needs independent ones."""
    rows = shipped_requests("calibration")
    assert len(rows) >= 280
    assert {(row.harmful, row.kind, row.source, row.twin, row.rules) for row in rows} == {
        (False, "ordinary", "shipped", "", ())
    }
    assert len({row.family for row in rows}) == len({row.id for row in rows}) == len(rows)
    assert all(row.text.strip() == row.text and 5 <= len(row.text.split()) <= 60 for row in rows)
    tasks = Counter(row.categories[0] for row in rows)
    assert set(tasks) == {row.categories[0] for row in shipped_requests("ordinary")}
    assert min(tasks.values()) >= 15


def test_calibration_requests_are_development_requests_alone() -> None:
    assert shipped_requests("calibration", "dev") == shipped_requests("calibration")
    assert shipped_requests("calibration", "train") == []
    assert shipped_requests("calibration", "test") == []


def test_calibration_requests_stand_in_no_other_set_and_move_no_split() -> None:
    calibration = shipped_requests("calibration")
    families = {row.family for row in calibration}
    assert not families & {row["family"] for row in _rows()}
    ids = {row.id for row in calibration}
    others = [request for name in SETS for request in shipped_requests(name)]
    assert not any(request.id in ids for request in [*others, *shipped_requests("rules")])


def _blank(requests: list[Request]) -> list[Request]:
    """Without labels, so that harmful requests count as near too, not only word for word."""
    return [request.model_copy(update={"harmful": None}) for request in requests]


def test_no_calibration_request_is_near_another_shipped_one_or_a_capability_question() -> None:
    shipped = [*shipped_requests("contrast"), *shipped_requests("ordinary"), *shipped_requests("rules")]
    against = _blank([*shipped, *known_evaluation_sets()["capability"]])
    rows = shipped_requests("calibration")
    kept, removed = remove_duplicates(rows, against)
    assert (len(kept), dict(removed)) == (len(rows), {})


def test_trivia_are_short_ordinary_questions_for_training_and_development() -> None:
    rows = shipped_requests("trivia")
    assert len(rows) == len({row.id for row in rows}) >= 200
    assert {(row.harmful, row.kind, row.source, row.rules) for row in rows} == {(False, "ordinary", "shipped", ())}
    assert all(len(row.text.split()) <= 12 for row in rows)
    parts = [shipped_requests("trivia", split) for split in SPLITS]
    assert sorted(row.id for part in parts for row in part) == sorted(row.id for row in rows)
    assert shipped_requests("trivia", "test") == []
    families = [{row.family for row in part} for part in parts]
    assert min(len(families[place]) for place, split in enumerate(SPLITS) if split != "test") >= 5
    assert sum(map(len, families)) == len(set().union(*families))
    assert not {row.family for row in rows} & {row["family"] for row in _rows()}


def test_no_trivia_is_near_another_shipped_request_or_a_question_of_the_test() -> None:
    """The test's short questions, all three hundred of them, are of the same kind and none of these."""
    tested = known_evaluation_sets()["capability"]
    assert len(tested) > 300
    shipped = [*shipped_requests("contrast"), *shipped_requests("ordinary"), *shipped_requests("calibration")]
    rows = shipped_requests("trivia")
    kept, removed = remove_duplicates(rows, _blank([*shipped, *shipped_requests("rules"), *tested]))
    assert (len(kept), dict(removed)) == (len(rows), {})


def test_no_calibration_request_is_near_a_public_one_of_over_refusal(shared: Path) -> None:
    path = str(shared / "over_refusal" / "xstest.csv")
    public = _blank(list(load_requests(SourceSpec(path=path), None)))
    assert len(public) == 450
    assert dict(remove_duplicates(shipped_requests("calibration"), public)[1]) == {}
