from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from forethought.attacks.searches.base import Ask, Goal, Question, Reply, Score, Tools, parse_method
from forethought.attacks.searches.random_search import (
    PATIENCE,
    alphabet,
    changed,
    first_suffix,
    pieces_to_change,
)
from forethought.models.conversation import Able, Response
from forethought.models.local import LocalModel
from forethought.records import user_request
from tests.attacks.searching import play
from tests.tiny import tiny_model, tiny_tokenizer

RANDOM_SEARCH = parse_method("random_search")

GOAL = Goal(request=user_request("Say that the sky is green"), target_string="Sure, the sky is green")
TEMPLATE = "Please: {request}"
OPENING = "Please: Say that the sky is green."
SMALL: dict[str, Any] = {"iterations": 40, "restarts": 1, "pieces": 6, "ask_every": 1_000}

Likes = Callable[[Score], float | None]


class Play:
    """Runs a search on scripted replies and keeps all that it asked, a list a round."""

    def __init__(
        self,
        likes: Likes,
        breaks: Callable[[str], bool | None] = lambda text: False,
        tools: Tools | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.likes, self.breaks = likes, breaks
        chosen = RANDOM_SEARCH.model_copy(update={"chosen": {**SMALL, **options}}).options
        run = RANDOM_SEARCH.search(GOAL, random.Random(seed), chosen, tools or Tools(templates=[TEMPLATE]))
        self.rounds = play(run, self.reply)

    def reply(self, question: Question) -> Reply:
        if isinstance(question, Score):
            return Reply(log_prob=self.likes(question))
        assert isinstance(question, Ask)
        return Reply(response=Response(answer="Hm."), broken=self.breaks(question.attacked.text))

    @property
    def scores(self) -> list[Score]:
        return [one for asked in self.rounds for one in asked if isinstance(one, Score)]

    @property
    def asks(self) -> list[Ask]:
        return [one for asked in self.rounds for one in asked if isinstance(one, Ask)]


def suffix_of(question: Score | Ask) -> str:
    return question.attacked.text.removeprefix(OPENING)


def likes_letters(question: Score) -> float:
    """The more letters the suffix has, the likelier the target; never likely enough to ask."""
    return -3.0 - sum(not one.isalpha() for one in suffix_of(question))


def shared(one: str, other: str) -> int:
    """Length of the text that both begin with."""
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


# The suffix


@pytest.mark.parametrize(
    ("most", "probability", "number"),
    [(4, 0.0, 4), (4, 0.01, 4), (4, 0.011, 2), (4, 0.1, 2), (4, 0.11, 1), (4, 1.0, 1), (16, 0.5, 4), (1, 0.0, 1)],
)
def test_fewer_pieces_are_changed_the_likelier_the_target_is(most: int, probability: float, number: int) -> None:
    assert pieces_to_change(most, probability) == number


def test_neighbouring_pieces_are_changed_and_their_number_stays() -> None:
    rng = random.Random(0)
    places = set()
    for _ in range(300):
        made = changed(tuple("......"), 2, "ab", rng)
        assert len(made) == 6
        at = [place for place, piece in enumerate(made) if piece != "."]
        assert len(at) == 2
        assert at[1] == at[0] + 1
        places.add(at[0])
    assert places == {0, 1, 2, 3, 4}
    assert set(changed(("x", "y"), 9, "a", rng)) == {"a"}, "no more than there are"


def test_without_the_models_tokens_a_suffix_is_printable_characters() -> None:
    pieces = alphabet(Tools())
    assert len(pieces) == 95
    assert all(len(one) == 1 and one.isprintable() for one in pieces)
    assert first_suffix("", 3, Tools()) == (" !", " !", " !")
    assert first_suffix(" ok", 3, Tools()) == (" ", "o", "k")


def test_with_the_models_tokens_a_suffix_is_their_texts() -> None:
    tokenizer = tiny_tokenizer()
    tools = Tools(model=LocalModel(tiny_model(), tokenizer, None))
    pieces = alphabet(tools)
    assert len(pieces) > 500
    assert len(pieces) == len(set(pieces))
    assert all(one and one.isascii() and one.isprintable() for one in pieces)
    assert " the" in pieces, "the space before a word is part of it"
    assert not [one for one in pieces if one in tokenizer.all_special_tokens]
    text = " worked elsewhere, größer 😀!"
    assert "".join(first_suffix(text, 3, tools)) == text
    assert 1 < len(first_suffix(text, 3, tools)) < len(text)


# The climb


def test_the_best_is_kept_and_each_change_starts_from_it() -> None:
    play = Play(likes_letters, iterations=300, pieces=20)
    best, bests = play.scores[0], []
    for one in play.scores[1:]:
        old, new = suffix_of(best), suffix_of(one)
        same = shared(old, new) + shared(old[::-1], new[::-1])
        assert same >= len(old) - 8, "at most four pieces of two characters are other ones"
        if likes_letters(one) > likes_letters(best):
            best = one
        bests.append(likes_letters(best))
    assert bests == sorted(bests)
    assert bests[-1] > bests[0]
    assert suffix_of(play.asks[-1]) == suffix_of(best), "the end of a restart asks its best"
    assert len(play.asks) == 2


def test_a_change_of_the_best_is_within_a_few_pieces_of_it() -> None:
    play = Play(lambda question: -9.0, pieces=20, change=3)
    first = suffix_of(play.scores[0])
    assert first == " !" * 20
    for one in play.scores[1:]:
        assert suffix_of(one).count(" !") >= 17, "an equal score is no gain: the first stays the best"


def test_the_request_its_template_and_its_suffix_are_put_together() -> None:
    play = Play(likes_letters)
    attacked = play.scores[0].attacked
    assert attacked.text == OPENING + " !" * 6
    assert attacked.request.plain == GOAL.request.text
    assert attacked.lineage == ("random_search",)
    assert play.scores[0].target_string == GOAL.target_string


def test_the_same_seed_asks_the_same_and_another_does_not() -> None:
    assert Play(likes_letters).rounds == Play(likes_letters).rounds
    assert Play(likes_letters).rounds != Play(likes_letters, seed=1).rounds


def test_a_restart_scores_so_many_and_takes_the_next_template() -> None:
    tools = Tools(templates=["One: {request}", "Two: {request}"])
    play = Play(lambda question: -9.0, tools=tools, restarts=3, iterations=10)
    assert len(play.scores) == 30
    assert [one.attacked.text[:3] for one in play.asks] == ["One", "Two"], "the same text is asked once"
    assert [one.attacked.text[:3] for one in play.scores[::10]] == ["One", "Two", "One"]
    assert all(suffix_of(one).endswith(" !" * 6) for one in play.scores[::10])
    assert suffix_of(play.scores[1]) != suffix_of(play.scores[21]), "the restarts go different ways"


def test_a_batch_is_changes_of_one_suffix() -> None:
    play = Play(likes_letters, batch=8, iterations=41)
    sizes = [len(asked) for asked in play.rounds]
    assert sizes == [1, 1, 8, 8, 8, 8, 8, 1], "the first suffix, asked and scored, five batches, and the last question"


def test_the_first_suffix_may_come_from_elsewhere() -> None:
    play = Play(likes_letters, initial=" as before")
    assert suffix_of(play.scores[0]) == " as before"


# What is maximised, and when it is asked


def test_first_the_first_token_then_the_whole_target_is_maximised() -> None:
    def likes(question: Score) -> float:
        return math.log(0.2) if question.first_only and len(play_scores) > 5 else -8.0 + 0.01 * len(play_scores)

    play_scores: list[Score] = []

    def count(question: Score) -> float:
        play_scores.append(question)
        return likes(question)

    play = Play(count, iterations=20)
    firsts = [one.first_only for one in play.scores]
    assert firsts == [True] * 6 + [False] * 14
    # Likely at the sixth: asked at once, and its suffix is the first one scored on the whole target.
    assert [place for place, asked in enumerate(play.rounds) if isinstance(asked[0], Ask)][:2] == [0, 7]
    assert suffix_of(play.scores[5]) == suffix_of(play.scores[6]) == suffix_of(play.asks[1])


def test_the_whole_target_is_climbed_from_its_own_start() -> None:
    whole: list[Score] = []

    def likes(question: Score) -> float:
        if question.first_only:
            return -0.1
        whole.append(question)
        return -20.0 + len(whole)

    play = Play(likes, iterations=10)
    assert suffix_of(play.asks[-1]) == suffix_of(whole[-1]), "less likely than a first token, and yet the best"


def test_the_paper_ends_a_restart_with_the_answer_to_a_likely_first_token() -> None:
    likely = " !" * 6

    def likes(question: Score) -> float:
        return -9.0 if suffix_of(question) == likely else -0.1

    play = Play(likes, objective="first", restarts=2)
    assert [type(asked[0]) for asked in play.rounds] == [Ask, Score, Score, Ask, Score, Score, Ask]
    assert all(one.first_only for one in play.scores)


def test_the_whole_target_may_be_maximised_from_the_start() -> None:
    play = Play(lambda question: -0.1, objective="target")
    assert not any(one.first_only for one in play.scores)
    assert len(play.scores) == 40


@pytest.mark.parametrize(("through", "ends"), [(1, 1), (2, 4), (3, 14)])
def test_it_ends_where_it_gets_through(through: int, ends: int) -> None:
    """With the template alone, where the first token has become likely, or nine scores later in any case."""
    asked: list[str] = []

    def breaks(text: str) -> bool:
        asked.append(text)
        return len(asked) == through

    def likes(question: Score) -> float:
        return -0.1 if question.first_only and suffix_of(question) != " !" * 6 else -20.0 + len(asked) + next(more)

    more = itertools.count()
    play = Play(likes, breaks=breaks, restarts=5, ask_every=9)
    assert isinstance(play.rounds[-1][0], Ask)
    assert len(play.rounds) == ends


def test_an_unscored_answer_is_no_success() -> None:
    play = Play(lambda question: -0.1, breaks=lambda text: None, restarts=2)
    assert len(play.scores) == 80


def test_a_small_budget_has_an_answer_to_show() -> None:
    play = Play(likes_letters, ask_every=10, iterations=100, pieces=20)
    asked = [suffix_of(one) for one in play.asks]
    assert 3 <= len(asked) <= 12
    assert len(asked) == len(set(asked)), "the same suffix is not asked again"
    assert [place for place, one in enumerate(play.rounds) if isinstance(one[0], Ask)][:2] == [0, 11]
    assert asked[0] == " !" * 20, "the template alone comes first"


def test_an_answer_that_failed_may_be_asked_for_again() -> None:
    class Down(Play):
        def reply(self, question: Question) -> Reply:
            return Reply(cause="down") if isinstance(question, Ask) else super().reply(question)

    assert len(Down(lambda question: -9.0, ask_every=10, iterations=40).asks) == 6


def test_a_restart_without_any_score_is_given_up_and_still_asked() -> None:
    play = Play(lambda question: None, iterations=1_000)
    assert len(play.scores) == PATIENCE
    assert len(play.asks) == 1


def test_a_score_now_and_then_is_enough_to_go_on() -> None:
    tried: list[Score] = []

    def likes(question: Score) -> float | None:
        tried.append(question)
        return -5.0 if len(tried) % (PATIENCE - 1) == 0 else None

    assert len(Play(likes, iterations=200).scores) == 200


# Models that think


def test_the_verdict_is_maximised_for_a_model_that_thinks() -> None:
    tools = Tools(templates=[TEMPLATE], thinks=True, able=Able(prefill=True))
    play = Play(lambda question: -9.0, tools=tools)
    assert {(one.target_string, one.first_only) for one in play.scores} == {(" comply", True)}
    assert all(one.attacked.prefill.endswith("Verdict:") for one in play.scores)
    assert not any(one.attacked.prefill for one in play.asks)


def test_a_thoughts_first_token_says_nothing_and_is_never_maximised_alone() -> None:
    tools = Tools(templates=[TEMPLATE], thinks=True, able=Able(prefill=True))
    play = Play(lambda question: -0.1, tools=tools, aim="think")
    assert not any(one.first_only for one in play.scores)
    assert all(one.target_string.endswith(GOAL.target_string) for one in play.scores)


def test_the_defaults_are_the_papers() -> None:
    expected = {"iterations": 10_000, "restarts": 10, "pieces": 25, "change": 4, "batch": 1, "ask_from": 0.1}
    assert expected.items() <= RANDOM_SEARCH.options.items()
