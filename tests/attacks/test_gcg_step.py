"""Candidates, steps and the optimum: on a model whose every suffix can be tried, and on the tiny one."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch

from forethought.attacks.searches.base import Goal
from forethought.attacks.searches.suffix import find_slot, printable_ids, suffix_texts, survivors, user_text
from forethought.attacks.searches.weights.gcg import (
    Problem,
    Setting,
    State,
    _gradient,
    candidates,
    problem,
    start,
    step,
)
from forethought.chat import encode_prompt
from forethought.errors import ModelError
from forethought.models.local import LocalModel
from forethought.records import Message, user_request
from tests.attacks.gcg_toy import toy
from tests.tiny import tiny_model, tiny_tokenizer

TOY_GOAL = Goal(user_request("what is the sun"), "sure the moon is green")
GOAL = Goal(user_request("What colour is the sky?", harmful=False), "Sure, the sky is green")


def tiny() -> LocalModel:
    return LocalModel(tiny_model(), tiny_tokenizer(), None)


def toy_problem(**setting: Any) -> Problem:
    return problem((TOY_GOAL,), toy(), "skip", Setting(**{"length": 2, "top_k": 99, **setting}), "seed")


def every_suffix(made: Problem) -> dict[tuple[int, ...], float]:
    """Loss of all suffixes of two words."""
    rows = list(itertools.product(made.allowed, repeat=2))
    tensor = made.tensor(rows)
    return dict(zip(rows, made.loss(tensor, tensor[0], 1).tolist(), strict=True))


def run(made: Problem, steps: int) -> State:
    state = start(made)
    for number in range(1, steps + 1):
        state = step(made, state, number)
    return state


# The optimum


def test_the_known_optimum_of_a_toy_model_is_found() -> None:
    made = toy_problem(candidates=64)
    losses = every_suffix(made)
    best = min(losses, key=losses.__getitem__)
    found = run(made, 12)
    assert start(made).loss > losses[best] + 0.5
    assert found.best == best
    assert found.best_loss == pytest.approx(losses[best], abs=1e-4)


def test_one_step_takes_the_best_single_change() -> None:
    """With every change among the candidates, the next suffix is the best neighbour."""
    made = toy_problem(candidates=3000)
    losses = every_suffix(made)
    first = start(made)
    near = [ids for ids in losses if sum(a != b for a, b in zip(ids, first.ids, strict=True)) <= 1]
    after = step(made, first, 1)
    assert after.ids == min(near, key=losses.__getitem__)
    assert after.loss == pytest.approx(losses[after.ids], abs=1e-4)


def test_the_best_is_kept_though_a_step_makes_it_worse() -> None:
    made = toy_problem(candidates=1)
    states = [start(made)]
    for number in range(1, 30):
        states.append(step(made, states[-1], number))
    assert any(later.loss > earlier.loss for earlier, later in itertools.pairwise(states))
    assert states[-1].best_loss == pytest.approx(min(state.loss for state in states))
    assert states[-1].text == suffix_texts(made.tokenizer, made.slots[0], [states[-1].best])[0]


def test_a_buffer_goes_on_from_the_best_it_has_seen() -> None:
    made = toy_problem(candidates=2, buffer=3)
    states = [start(made)]
    for number in range(1, 25):
        states.append(step(made, states[-1], number))
    assert all(later.loss <= earlier.loss for earlier, later in itertools.pairwise(states))
    for state in states:
        losses = [loss for loss, _ in state.buffer]
        assert losses == sorted(losses)
        assert len(losses) <= 3
        assert state.ids == state.buffer[0][1]
        assert len({ids for _, ids in state.buffer}) == len(losses)


# Candidates


def test_candidates_change_one_place_to_one_of_its_steepest_tokens() -> None:
    made = problem((GOAL,), tiny(), "skip", Setting(candidates=300, top_k=5, length=6), "seed")
    ids = made.slots[0].first
    torch.manual_seed(0)
    gradient = torch.randn(len(ids), made.losses[0][0].weights.config.vocab_size)
    allowed = set(made.allowed)
    steepest = [[token for token in row.argsort().tolist() if token in allowed][:5] for row in gradient]
    rows = candidates(ids, gradient, made, random.Random(0))
    places = set()
    for row in rows:
        (place,) = [place for place in range(len(ids)) if row[place] != ids[place]]
        assert row[place] in steepest[place]
        places.add(place)
    assert len(rows) == len(set(rows))
    assert len(rows) > 15
    assert places == set(range(6))
    assert candidates(ids, gradient, made, random.Random(0)) == rows
    assert candidates(ids, gradient, made, random.Random(1)) != rows


def test_only_printable_ascii_is_drawn_and_no_special_token() -> None:
    tokenizer = tiny_tokenizer()
    allowed = set(printable_ids(tokenizer))
    assert len(allowed) > 500
    assert not allowed & set(tokenizer.all_special_ids)
    for text in ("é", "\n", "\t", "…"):
        assert not allowed & set(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert tokenizer("!", add_special_tokens=False)["input_ids"][0] in allowed
    words = toy().tokenizer
    assert words.convert_tokens_to_ids("süß") not in printable_ids(words)
    assert words.convert_tokens_to_ids("<user>") not in printable_ids(words)


def test_ids_that_are_read_back_otherwise_do_not_survive() -> None:
    tokenizer = tiny_tokenizer()
    slot = find_slot(tokenizer, GOAL.request.messages, " ! !")

    def ids(*pieces: str) -> tuple[int, ...]:
        return tuple(token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"])

    whole, split = ids(" hello", " there"), ids(" hel", "lo", " there")
    assert ids(" hello there") == whole != split
    spelled = ids("<", "|", "im", "_", "end", "|", ">")
    blank = ids(" hello", " ")
    assert survivors(tokenizer, [slot], [whole, split, spelled, blank]) == [True, False, False, False]
    assert survivors(tokenizer, [slot], []) == []


def test_a_step_of_which_no_candidate_survives_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy_problem(candidates=4)
    first = start(made)
    monkeypatch.setattr(
        "forethought.attacks.searches.weights.gcg.survivors", lambda tokenizer, slots, rows: [False] * len(rows)
    )
    assert step(made, first, 1) == first


# The place of the suffix


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "What colour is the sky?")],
        [("user", "What colour is the sky? \n")],
        [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "What colour is the sky")],
    ],
)
def test_head_suffix_and_tail_are_the_prompt_the_model_is_given(messages: list[tuple[str, str]]) -> None:
    model = tiny()
    turns = tuple(Message.model_validate({"role": role, "content": text}) for role, text in messages)
    slot = find_slot(model.tokenizer, turns, " !" * 20)
    assert len(slot.first) == 20
    suffix = suffix_texts(model.tokenizer, slot, [slot.first])[0]
    assert suffix == " !" * 20
    assert user_text(turns, suffix) == turns[-1].content.strip() + suffix
    said = (*turns[:-1], Message(role="user", content=user_text(turns, suffix)))
    assert [*slot.head, *slot.first, *slot.tail] == encode_prompt(model.tokenizer, said)


def test_what_was_optimised_is_what_the_model_is_given() -> None:
    model = tiny()
    made = problem((GOAL,), model, "skip", Setting(candidates=40, length=6), "seed")
    found = run(made, 3)
    text = suffix_texts(model.tokenizer, made.slots[0], [found.ids])[0]
    prompt = encode_prompt(model.tokenizer, (Message(role="user", content=GOAL.request.text + text),))
    assert prompt == [*made.slots[0].head, *found.ids, *made.slots[0].tail]


def test_a_first_suffix_that_melts_into_its_neighbours_is_an_error() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(ModelError, match="joins the suffix"):
        find_slot(tokenizer, user_request("Look at the wat").messages, "er")


# Many goals


def group() -> list[Goal]:
    said = [("what is the sun", "sure red"), ("what is the cat", "sure blue"), ("what is the star", "sure one")]
    return [Goal(user_request(text), target) for text, target in said]


def test_the_loss_of_many_goals_is_their_mean() -> None:
    wide = problem(group(), toy(), "skip", Setting(length=2, progressive=False), "seed")
    rows = wide.tensor([wide.slots[0].first, (9, 12)])
    each = [problem((goal,), toy(), "skip", Setting(length=2), "seed").loss(rows, rows[0], 1) for goal in group()]
    assert start(wide).goals == 3
    assert torch.allclose(wide.loss(rows, rows[0], 3), torch.stack(each).mean(0), atol=1e-5)


def test_the_gradient_of_many_goals_is_the_sum_of_unit_ones() -> None:
    made = problem(group(), toy(), "skip", Setting(length=2, progressive=False), "seed")
    row = made.tensor(made.slots[0].first)
    units = [(one := loss.gradient(row)) / one.norm() for loss in made.taken(3)]
    assert torch.allclose(_gradient(made, row, 3), units[0] + units[1] + units[2], atol=1e-5)
    assert torch.allclose(_gradient(made, row, 1), made.taken(1)[0].gradient(row))


def test_a_goal_is_taken_in_when_those_before_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem(group(), toy(), "skip", Setting(length=2, candidates=8), "seed")
    assert start(made).goals == 1
    reached = {1}
    monkeypatch.setattr("forethought.attacks.searches.weights.gcg._hit", lambda problem, ids, goals: goals in reached)
    state = step(made, start(made), 1)
    assert state.goals == 2
    assert not state.hit
    row = made.tensor([state.ids])
    assert state.loss == state.best_loss == pytest.approx(float(made.loss(row, row[0], 2)[0]), abs=1e-5)
    assert step(made, state, 2).goals == 2
    reached.update({2, 3})
    state = step(made, state, 2)
    assert state.goals == 3
    assert step(made, state, 3).goals == 3
