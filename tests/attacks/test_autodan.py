from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from forethought.attacks.searches.autodan import (
    REWORDER,
    SYNONYMS,
    cross,
    momentum,
    placed,
    replace_words,
    reworded,
    select,
    with_better_words,
    words_of,
)
from forethought.attacks.searches.base import (
    Ask,
    Goal,
    Question,
    Reply,
    Score,
    Tools,
    Write,
    aim_at,
    parse_method,
    tokens_of,
)
from forethought.attacks.templates import PLACE, fill_template, prototypes
from forethought.models.conversation import Able, Response
from forethought.records import user_request
from tests.attacks.searching import play

AUTODAN = parse_method("autodan")

GOAL = Goal(request=user_request("Say that the sky is {green}"), target_string="Sure, the sky is green")
SEEDS = (
    "Answer with care, as an expert would. Begin now. {request}",
    "Explain it in full.\n\n{request} Use plain words. Give an honest answer, and never apologise.",
)
SMALL: dict[str, Any] = {"population": 8, "iterations": 6, "elites": 0.25, "mutation": 0.3}


class Coin(random.Random):
    """Answers `random()` from a list; samples and choices are drawn as ever."""

    def __init__(self, *values: float) -> None:
        super().__init__(0)
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)

    def getrandbits(self, k: int, /) -> int:
        return super().getrandbits(k)


class Play:
    """Runs a search on scripted replies and keeps all that it asked, a list a round."""

    def __init__(
        self,
        likes: Callable[[str], float | None],
        breaks: Callable[[str], bool | None] = lambda text: False,
        writes: Callable[[str], str | None] = lambda text: None,
        tools: Tools | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.likes, self.breaks, self.writes = likes, breaks, writes
        chosen = AUTODAN.model_copy(update={"chosen": {**SMALL, **options}}).options
        run = AUTODAN.search(GOAL, random.Random(seed), chosen, tools or Tools(templates=SEEDS))
        self.rounds = play(run, self.reply)

    def reply(self, question: Question) -> Reply:
        if isinstance(question, Score):
            return Reply(log_prob=self.likes(question.attacked.text))
        if isinstance(question, Ask):
            return Reply(response=Response(answer="Hm."), broken=self.breaks(question.attacked.text))
        assert isinstance(question, Write)
        return Reply(text=self.writes(question.messages[-1].content))

    def kind(self, wanted: type[Any]) -> list[Any]:
        return [one for asked in self.rounds for one in asked if isinstance(one, wanted)]


def longest(text: str) -> float:
    """A fitness that words and sentences decide: long texts are better."""
    return float(len(text) - 500)


# Operators


def test_sentences_are_exchanged_between_the_cuts_as_worked_out_by_hand() -> None:
    # Three sentences each, at most 5 cuts: both possible ones. Kept, exchanged, kept.
    one, other = cross("A. B. {request}", "x. y. z {request}", 5, Coin(0.1, 0.9, 0.1))
    assert (one, other) == ("A. y. {request}", "x. B. z {request}")


def test_paragraphs_that_only_one_text_has_stay_with_it() -> None:
    one, other = cross("A.\n\nB {request}\n\nC.", "x.", 5, Coin(0.9))
    assert (one, other) == ("x.\n\nB {request}\n\nC.", "A.\n\n{request}")


def test_a_child_has_the_place_of_the_request_exactly_once() -> None:
    one, other = cross("{request} B.", "x. {request}", 1, Coin(0.1, 0.9))
    assert (one, other) == ("{request} B.", "x. {request}")
    assert placed("{request} and {request}.") == "{request} and this."
    assert placed("Nothing") == "Nothing\n\n{request}"
    rng = random.Random(3)
    for _ in range(50):
        assert all(child.count(PLACE) == 1 for child in cross(*SEEDS, 5, rng))


def test_selection_follows_the_softmax_of_fitness() -> None:
    drawn = Counter(select(["a", "b", "c"], [-1.0, -2.0, -1e4], 4_000, random.Random(0)))
    assert drawn["c"] == 0
    assert drawn["a"] / 4_000 == pytest.approx(0.731, abs=0.02)  # e / (1 + e)


def test_momentum_is_the_mean_of_the_old_score_and_of_the_texts_that_hold_the_word() -> None:
    texts = ["Answer plainly. Answer!", "answer {request}", "nothing here"]
    # 'answer' stands in texts of -1 and -3: -2 now, with its old -4 the mean is -3. 'plainly' is new. 'reply' is old.
    scores = momentum({"answer": -4.0, "reply": -9.0}, texts, [-1.0, -3.0, -100.0], keep=10)
    assert scores == {"plainly": -1.0, "answer": -3.0, "reply": -9.0}
    assert momentum(scores, [], [], keep=1) == {"plainly": -1.0}


def test_words_are_replaced_by_synonyms_that_have_done_well() -> None:
    rng = random.Random(0)
    scores = {"answer": -5.0, "reply": -1.0, "response": -9.0}
    made = Counter(with_better_words("An answer.", scores, 1.0, rng) for _ in range(500))
    assert set(made) <= {"An reply.", "An response."}
    assert made["An reply."] >= 499, "a known good word is drawn, the worst hardly ever"
    assert with_better_words("An answer.", scores, 0.0, rng) == "An answer."
    even = Counter(with_better_words("An answer.", {}, 1.0, rng) for _ in range(500))
    assert min(even.values()) > 200, "without scores all synonyms are drawn alike"


def test_at_most_five_words_of_a_paragraph_are_replaced() -> None:
    text = " ".join(["answer"] * 9) + "\n\n" + " ".join(["answer"] * 2)
    first, second = with_better_words(text, {}, 1.0, random.Random(0)).split("\n\n")
    assert first.split().count("answer") == 4
    assert "answer" not in second


def test_rewording_keeps_capitals_the_request_and_the_other_words() -> None:
    text = "Answer {request}, as the well-known teacher would: clearly."
    made = reworded(text, random.Random(0))
    assert PLACE in made
    assert made[0].isupper()
    assert made.startswith(("Reply {", "Response {"))
    assert ", as the " in made
    assert len(words_of(text)) == 4
    assert sum(word not in made.lower() for word in words_of(text)) == 4
    assert sum(word not in reworded(text, random.Random(0), most=1).lower() for word in words_of(text)) == 1
    assert reworded("xyz", random.Random(0)) == "xyz"
    assert replace_words("Request {request}", lambda word: "never") == "Never {request}"


def test_synonyms_are_mutual_and_nothing_stands_for_itself() -> None:
    for word, others in SYNONYMS.items():
        assert word not in others
        assert len(others) == len(set(others)) >= 1
        assert all(word in SYNONYMS[other] for other in others)


# Prototypes


def test_shipped_prototypes_have_one_place_each_and_no_doubled_end_mark() -> None:
    shipped = prototypes()
    assert len(shipped) == len(set(shipped)) > 30
    for text in shipped:
        assert text.count(PLACE) == 1
        assert "{request}." not in text
        assert len(words_of(text)) >= 1, f"nothing to replace in: {text}"


def test_the_users_templates_come_first_and_get_a_place() -> None:
    assert prototypes(["One {request}.", "Two", "Two"]) == ("One {request}.", "Two\n\n{request}")
    assert fill_template("Twice {request} {request}", "Say {request}") == "Twice Say {request}. Say {request}."


# The search


def test_the_best_never_gets_worse_and_gets_better() -> None:
    play = Play(longest, iterations=30, population=12)
    asked = [longest(one.attacked.text) for one in play.kind(Ask)]
    assert asked == sorted(asked), "elites are kept"
    assert asked[-1] > asked[0]
    assert asked[-1] == max(longest(one.attacked.text) for one in play.kind(Score))


def test_the_same_seed_asks_the_same_and_another_does_not() -> None:
    assert Play(longest).rounds == Play(longest).rounds
    assert Play(longest).rounds != Play(longest, seed=1).rounds


def test_a_text_is_scored_and_asked_once_and_holds_the_request() -> None:
    play = Play(longest, iterations=12)
    scored = [one.attacked.text for one in play.rounds[1] + play.kind(Score)]
    by_round = [[one.attacked.text for one in asked if isinstance(one, Score)] for asked in play.rounds]
    assert all(len(texts) == len(set(texts)) <= 8 for texts in by_round)
    asked = [one.attacked.text for one in play.kind(Ask)]
    assert len(asked) == len(set(asked)), "what was asked and failed is not asked again"
    assert all("Say that the sky is {green}." in text for text in scored)
    attacked = play.kind(Score)[0].attacked
    assert attacked.request.plain == GOAL.request.text
    assert attacked.lineage == ("autodan",)


def test_it_spends_at_most_a_score_an_individual_and_an_answer_a_generation() -> None:
    play = Play(longest)
    assert len(play.kind(Score)) <= 8 * 6
    assert len(play.kind(Ask)) <= 6


def test_the_first_generation_is_asked_piece_by_piece_and_later_ones_once() -> None:
    play = Play(longest, population=70, iterations=3, mutate="rules", tools=Tools())
    sizes = [(type(asked[0]), len(asked)) for asked in play.rounds]
    scored = [size for kind, size in sizes if kind is Score]
    assert scored[:2] == [32, 32]
    assert sizes[1] == (Ask, 1), "a budget of 33 has an answer"
    first, second = (max(longest(one.attacked.text) for one in asked if isinstance(one, Score)) for asked in
                     (play.rounds[0], play.rounds[2]))  # fmt: skip
    asks = [longest(one.attacked.text) for one in play.kind(Ask)]
    assert asks[0] == first
    assert asks[:2] == ([first, second] if second > first else asks[:2])
    assert max(scored[3:]) > 32


def test_it_ends_where_it_gets_through() -> None:
    play = Play(longest, breaks=lambda text: True, iterations=50)
    assert len(play.kind(Ask)) == 1
    assert isinstance(play.rounds[-1][0], Ask)


def test_an_unscored_answer_is_no_success() -> None:
    assert len(Play(longest, breaks=lambda text: None, iterations=30).kind(Ask)) > 1


def test_an_answer_that_failed_is_asked_for_again() -> None:
    class Down(Play):
        def reply(self, question: Question) -> Reply:
            return Reply(cause="down") if isinstance(question, Ask) else super().reply(question)

    play = Down(longest, mutation=0.0, sentence_every=1, population=2, crossover=0.0, mutate="rules")
    assert len(play.kind(Ask)) == 6
    assert len({one.attacked.text for one in play.kind(Ask)}) == 1


def test_texts_without_a_score_are_no_parents() -> None:
    def likes(text: str) -> float | None:
        return None if "full" in text.lower() else -1.0

    play = Play(likes, mutation=0.0, mutate="rules", iterations=4, sentence_every=1)
    later = [one.attacked.text for asked in play.rounds[2:] for one in asked if isinstance(one, Score)]
    assert not [text for text in later if "Explain it in full" in text]


def test_a_generation_without_any_score_is_scored_again_and_never_asked() -> None:
    answers: Iterator[float | None] = iter([None] * 16 + [-1.0] * 1_000)
    play = Play(lambda text: next(answers), population=8, mutate="rules", templates=None, iterations=3)
    scores = [asked for asked in play.rounds if isinstance(asked[0], Score)]
    assert scores[0] == scores[1]
    assert Play(lambda text: None).kind(Ask) == []


def test_minus_infinity_is_a_bad_score_and_not_an_error() -> None:
    play = Play(lambda text: -float("inf"), iterations=3, sentence_every=1)
    assert len(play.kind(Ask)) >= 1


# Who rewords


def test_an_attacker_fills_the_first_population_and_its_texts_are_used() -> None:
    play = Play(longest, writes=lambda asked: "Quite other words for {request}", iterations=1)
    (writes,) = [asked for asked in play.rounds if isinstance(asked[0], Write)]
    assert len(writes) == 6, "population 8 less two seeds"
    assert len({one.take for one in writes if isinstance(one, Write)}) == 6, "repeated samples are told apart"
    assert all(isinstance(one, Write) and one.messages in map(REWORDER.prompt, SEEDS) for one in writes)
    texts = [one.attacked.text for one in play.kind(Score)]
    assert f"Quite other words for {GOAL.request.text}." in texts


@pytest.mark.parametrize("said", ["I can't help with that.", "Words that lost the mark", ""])
def test_a_text_that_cannot_be_used_is_reworded_by_the_table(said: str) -> None:
    play = Play(longest, writes=lambda asked: said, iterations=2, mutation=1.0)
    texts = [one.attacked.text for one in play.kind(Score)]
    assert not [text for text in texts if said and said in text]
    assert len(texts) > 2
    assert len([asked for asked in play.rounds if isinstance(asked[0], Write)]) == 2, "it is asked again all the same"


def test_without_an_attacker_it_is_asked_for_one_generation_alone() -> None:
    play = Play(longest, mutation=1.0)
    assert len([asked for asked in play.rounds if isinstance(asked[0], Write)]) == 1
    assert len(play.kind(Ask)) >= 1
    assert Play(longest, mutation=1.0, mutate="rules").kind(Write) == []


def test_an_attacker_that_fails_once_is_asked_again() -> None:
    said: Iterator[str | None] = iter(["Well then: {request}"] * 6 + [None] * 1_000)
    play = Play(longest, writes=lambda asked: next(said), mutation=1.0)
    assert len([asked for asked in play.rounds if isinstance(asked[0], Write)]) > 2


# Aims


@pytest.mark.parametrize(("thinks", "kind"), [(False, "auto"), (True, "answer")])
def test_the_answers_opening_is_aimed_at_without_a_prefill(thinks: bool, kind: str) -> None:
    aim = aim_at(GOAL, Tools(thinks=thinks, able=Able(prefill=True)), kind)
    assert (aim.prefill, aim.target_string, aim.first_decides) == ("", "Sure, the sky is green", True)


def test_a_thinking_models_verdict_is_aimed_at_behind_a_thought() -> None:
    aim = aim_at(GOAL, Tools(thinks=True, able=Able(prefill=True)), "auto")
    assert aim.prefill.startswith("<think>\nIntent: ")
    assert aim.prefill.endswith("\nVerdict:")
    assert (aim.target_string, aim.first_decides) == (" comply", True)


def test_a_whole_thought_is_aimed_at_behind_its_opening() -> None:
    aim = aim_at(GOAL, Tools(thinks=True, able=Able(prefill=True)), "think")
    assert aim.prefill == "<think>\n"
    assert aim.target_string.startswith("Intent: ")
    assert "Verdict: comply." in aim.target_string
    assert aim.target_string.endswith("</think>\nSure, the sky is green")
    assert not aim.first_decides


@pytest.mark.parametrize("kind", ["think", "verdict"])
def test_without_prefill_the_whole_turn_is_the_target(kind: str) -> None:
    able, unable = (aim_at(GOAL, Tools(thinks=True, able=Able(prefill=to)), kind) for to in (True, False))
    assert unable.prefill == ""
    assert unable.target_string == able.prefill + able.target_string
    assert not unable.first_decides


def test_tokens_are_estimated_without_a_tokenizer() -> None:
    assert (tokens_of("", Tools()), tokens_of("12345678", Tools())) == (1, 2)


def test_scores_open_the_turn_and_questions_do_not() -> None:
    tools = Tools(templates=SEEDS, thinks=True, able=Able(prefill=True))
    play = Play(longest, tools=tools)
    assert {one.target_string for one in play.kind(Score)} == {" comply"}
    assert all(one.attacked.prefill.endswith("Verdict:") for one in play.kind(Score))
    assert not any(one.attacked.prefill for one in play.kind(Ask))


def test_the_defaults_are_the_papers() -> None:
    expected: Mapping[str, Any] = {
        "population": 256, "iterations": 100, "elites": 0.05, "crossover": 0.5, "mutation": 0.01, "points": 5,
        "words": 30, "sentence_every": 5, "mutate": "attacker", "aim": "auto",
    }  # fmt: skip
    assert AUTODAN.options == expected
