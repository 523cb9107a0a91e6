"""Rows that have to be solved: what they hold, what their thoughts say, and that nothing near them is tested."""

from __future__ import annotations

import re

import pytest

from forethought.attacks.catalogue import parse_attack
from forethought.data.shipped import shipped_requests
from forethought.data.teach import teach, verify
from forethought.errors import ConfigError
from forethought.pipeline.recipe import BuildConfig, SolveConfig
from forethought.pipeline.solving import answered_as, check_apart, solving_rows, with_solution
from forethought.policy import default_policy
from forethought.reasoning import parse, render, solved_text
from forethought.records import Example, Request

SOLVE = SolveConfig(disguises=("notes", "codewords:2", "chain:2", "flip:words", "pig_latin"), rows=60, skill=20)
POLICY = default_policy()


@pytest.fixture(scope="module")
def rows() -> list[Request]:
    return solving_rows([*shipped_requests("contrast", "train"), *shipped_requests("ordinary", "train")], SOLVE, 0)


def _taught(rows: list[Request], **changes: object) -> list[Example]:
    solve = SOLVE.model_copy(update=changes)
    return [with_solution(teach(row, POLICY, 0, thought_only=True), solve) for row in rows]


def test_pairs_wear_the_same_disguise_and_the_skill_is_learnt_on_harmless_text(rows: list[Request]) -> None:
    pairs, skill = [row for row in rows if row.twin], [row for row in rows if not row.twin]
    assert len(pairs) == 60
    assert 18 <= len(skill) <= 20  # each text once
    assert sum(bool(row.harmful) for row in pairs) == 30
    assert not any(row.harmful for row in skill)
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        assert (one.twin, one.operator, one.harmful) == (other.twin, other.operator, not other.harmful)
    assert {row.operator for row in rows} == {"notes", "codewords:2", "chain:2", "flip:words", "pig_latin"}
    assert (
        solving_rows([*shipped_requests("contrast", "train"), *shipped_requests("ordinary", "train")], SOLVE, 0) == rows
    )


def test_their_thoughts_solve_them_exactly_and_pass_the_checks(rows: list[Request]) -> None:
    taught = _taught(rows)
    kept, dropped = verify(taught, POLICY)
    assert len(kept) >= 0.95 * len(rows), [one.cause for one in dropped]
    for example in kept:
        assert example.reasoning.asked == " ".join(example.request.plain.split())
        read = parse(render(example.reasoning, POLICY), POLICY).reasoning
        assert read is not None
        assert (read.steps, read.asked) == (example.reasoning.steps, example.reasoning.asked)
    deep = next(one for one in kept if one.request.operator == "codewords:2")
    assert len(deep.reasoning.steps) == 3  # the reference, a link, the text


def test_what_a_thought_spells_is_read_from_its_letters() -> None:
    """A small model gets the letters of `neighbour` right, and then writes `nose`: it is asked for no word."""
    solve = SOLVE.model_copy(update={"harmless_only": ("keyed:2",)})
    drawn = solving_rows([*shipped_requests("contrast", "train"), *shipped_requests("ordinary", "train")], solve, 0)
    skill = [row for row in drawn if not row.twin]
    kept, _ = verify(_taught(skill, harmless_only=("keyed:2",)), POLICY)
    assert len(kept) == len(skill) > 10
    for example in kept:
        said = render(example.reasoning, POLICY)
        assert "Asked:" not in said
        assert example.request.plain not in said, "not as its intent either"
        read = parse(said, POLICY).reasoning
        assert read is not None
        assert read.asked == " ".join(example.request.plain.split())
        before, behind = "Step: a\nAsked: b\nVerdict: comply.", "Intent: c.\nVerdict: comply."
        assert solved_text(f"{before}\n{said}\n{behind}") == read.asked, (
            "of several thoughts the last that found something"
        )
        assert solved_text(f"{said}\n{before}") == "b"


def test_what_is_taught_on_harmless_text_alone_is_worn_by_no_pair() -> None:
    solve = SOLVE.model_copy(update={"harmless_only": ("differences:1", "gaps:1")})
    requests = [*shipped_requests("contrast", "train"), *shipped_requests("ordinary", "train")]
    alone = [row for row in solving_rows(requests, solve, 0) if row.operator in ("differences", "gaps:1")]
    assert len(alone) >= 9
    skill = [row.operator for row in solving_rows(requests, solve, 0) if not row.twin]
    assert set(skill) == {"differences", "gaps:1"}
    more = solve.model_copy(update={"skill": 120, "harmless_only": ("differences:1", "gaps:1", "gaps:1", "gaps:1")})
    often = [row.operator for row in solving_rows(requests, more, 0) if not row.twin]
    assert often.count("gaps:1") > 2 * often.count("differences")  # what is named more often is worn more often
    assert not any(row.harmful or row.twin for row in alone)
    assert all(with_solution(teach(row, POLICY, 0, thought_only=True), solve).reasoning.steps for row in alone)
    check_apart(solve, ["differences:2", "gaps:2"])
    with pytest.raises(ConfigError, match="takes work"):
        check_apart(solve, ["codewords:1"])


def test_the_skill_is_learnt_on_texts_that_begin_alike_where_there_are() -> None:
    requests = [*shipped_requests("contrast", "train"), *shipped_requests("ordinary", "train")]
    found = solving_rows(requests, SolveConfig(disguises=("codewords:1",), rows=2, skill=60), 0)
    texts = [re.findall(r"(?m) stands for: (.*)$", row.text) for row in found if not row.twin]
    alike = [one.lower().split()[:2] == other.lower().split()[:2] for one, other in texts]
    assert sum(alike) > len(alike) / 3  # drawn at random it is one pair in seventy


def test_what_cannot_be_guessed_has_drawn_words_behind_those_it_begins_with() -> None:
    requests = [*shipped_requests("contrast", "train"), *shipped_requests("ordinary", "train")]
    solve = SolveConfig(disguises=("votes:1",), harmless_only=("codewords:1",), rows=2, skill=200, unforeseen=0.5)
    answered = [one.model_copy(update={"answer": "Gladly."}) for one in requests]
    skill = [row for row in solving_rows(answered, solve, 0) if not row.twin]
    known = {one.plain for one in requests}
    mixed = [row for row in skill if row.plain not in known]
    assert 70 < len(mixed) < 130
    words = {word for one in requests if one.harmful is False for word in one.plain.split()}
    assert all(set(row.plain.split()) <= words for row in mixed)
    assert not any(row.answer for row in mixed)  # the source's is an answer to another text
    beginnings = {tuple(one.split()[:2]) for one in known}
    assert all(tuple(row.plain.split()[:2]) in beginnings for row in mixed)
    # What stands beside it can be guessed no better.
    texts = [re.findall(r"(?m) stands for: (.*)$", row.text) for row in mixed]
    assert all(not set(one) <= known and len(one) == 2 for one in texts)
    taught = _taught(mixed, harmless_only=solve.harmless_only)
    assert [one.reasoning.asked for one in taught] == [row.plain for row in mixed]
    assert not verify(taught, POLICY)[1]
    # Words of look-alikes could make a harmful text.
    near = [one.model_copy(update={"kind": "lookalike"} if not one.twin else {}) for one in requests]
    assert {row.plain for row in solving_rows(near, solve, 0)} <= known


def test_a_short_thought_has_no_steps_and_a_filler_is_as_long_and_says_nothing(rows: list[Request]) -> None:
    solved, short, filler = (_taught(rows, thought=kind) for kind in ("solved", "short", "filler"))
    assert not any(one.reasoning.steps or one.reasoning.asked for one in short)
    assert [one.reasoning.verdict for one in filler] == [one.reasoning.verdict for one in solved]
    for one in filler:
        assert set(one.reasoning.steps[0]) <= {".", " "}
        assert one.reasoning.intent == filler[0].reasoning.intent
    lengths = [sum(len(render(one.reasoning, POLICY).split()) for one in some) for some in (solved, filler)]
    assert 0.9 < lengths[1] / lengths[0] < 1.4
    assert not verify(filler, POLICY)[1]


def test_a_plain_request_s_thought_stays_as_it_is() -> None:
    plain = teach(shipped_requests("ordinary", "train")[0], POLICY, 0)
    assert with_solution(plain, SOLVE) == with_solution(plain, None) == plain
    assert "Step" not in render(plain.reasoning, POLICY)


def test_the_model_s_own_answer_is_to_what_is_asked(rows: list[Request]) -> None:
    solved = next(row for row in rows if row.operator == "codewords:2")
    assert answered_as(solved, SOLVE).text == solved.plain
    assert answered_as(solved, None) is solved


def test_nothing_near_what_is_trained_on_is_tested() -> None:
    check_apart(SOLVE, ["sums:2", "turns:1", "leetspeak:2", "style_json", "direct"])
    for near in ("codewords:1", "chain:5", "flip", "sums:1 | notes"):
        assert parse_attack(near).work
        with pytest.raises(ConfigError, match="takes work"):
            check_apart(SOLVE, ["sums:2", near])


@pytest.mark.parametrize("lost", ["jumbled", "style_json", "poems"])
def test_a_disguise_without_a_way_back_is_not_trained_on(lost: str) -> None:
    with pytest.raises(ConfigError, match="no way back"):
        check_apart(SolveConfig(disguises=(lost,)), [])


def test_a_build_without_them_is_known_as_before() -> None:
    assert "solve" not in BuildConfig().model_dump()
    assert "solve" in BuildConfig(solve=SOLVE).model_dump()


def test_no_pair_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no pair"):
        solving_rows(shipped_requests("ordinary", "train")[:5], SOLVE, 0)
