"""Sampling: drawn as the model predicts, reproducible in any company, and without a hand on the verdict."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from forethought.models.conversation import Conversation, Response
from forethought.models.decode import Decoder, Draws, Row, VerdictTokens, drawn, draws_for
from forethought.models.local import LocalModel
from tests.scripted import as_messages
from tests.tiny import tiny_adapter, tiny_folder, tiny_model, tiny_tokenizer

NO_END = frozenset({0})
TEXTS = ("Hello", "What is the capital of Norway, and how many people live there?", "Name three kinds of pasta.", "a")


class _Fixed(Draws):
    def __init__(self, number: float, temperature: float = 1.0) -> None:
        super().__init__(temperature, 0, [1])
        self._number = number

    def number(self) -> float:
        return self._number


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (0.49, 0), (0.51, 2), (0.74, 2), (0.76, 3), (0.999999, 3)])
def test_a_token_is_found_by_the_inverse_of_its_distribution(number: float, token: int) -> None:
    """Probabilities .5, 0, .25, .25: the borders lie at .5 and .75, and the second is never drawn."""
    logits = torch.tensor([[math.log(2.0), -math.inf, 0.0, 0.0]])
    assert drawn(logits, [_Fixed(number)]) == [token]


def test_what_is_impossible_is_not_drawn_at_the_border() -> None:
    assert drawn(torch.tensor([[-math.inf, 0.0, -math.inf]]), [_Fixed(0.0)]) == [1]


def test_temperature_divides_the_logits() -> None:
    """Log-odds of ln 4 at temperature 2 are ln 2: the first token has two thirds. Rows keep their own."""
    logits = torch.tensor([[math.log(4.0), 0.0]]).repeat(4, 1)
    numbers = [_Fixed(0.66, 2.0), _Fixed(0.67, 2.0), _Fixed(0.79, 1.0), _Fixed(0.81, 1.0)]
    assert drawn(logits, numbers) == [0, 1, 0, 1]


def test_tokens_come_as_often_as_they_are_likely() -> None:
    draws = Draws(1.0, 5, [1, 2])
    logits = torch.tensor([[math.log(6.0), math.log(3.0), 0.0]])
    count = Counter(drawn(logits, [draws])[0] for _ in range(4000))
    # Standard error of a share of .6 among 4,000 is .008.
    assert [count[token] / 4000 for token in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_no_draws_at_temperature_0() -> None:
    assert draws_for(0.0, 3, [1]) is None


def _rows(tokenizer: Any, seeds: tuple[int, ...] = (0, 0, 0, 0), temperature: float = 1.0) -> list[Row]:
    prompts = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    return [
        Row(place, prompt, 8 + place, draws=draws_for(temperature, seed, prompt))
        for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]


def _made(model: Any, tokenizer: Any, rows: list[Row], batch_size: int = 128) -> list[list[int]]:
    Decoder(model, tokenizer, NO_END, batch_size).run(rows)
    return [row.made for row in rows]


def test_a_sample_is_the_same_in_any_company(model: Any, tokenizer: Any) -> None:
    together = _made(model, tokenizer, _rows(tokenizer))
    assert _made(model, tokenizer, _rows(tokenizer), batch_size=2) == together
    for place, row in enumerate(_rows(tokenizer)):
        assert _made(model, tokenizer, [row]) == [together[place]]


def test_seeds_and_prompts_are_drawn_apart(model: Any, tokenizer: Any) -> None:
    one, other = (_made(model, tokenizer, _rows(tokenizer, (seed,) * 4)) for seed in (0, 1))
    assert all(first != second for first, second in zip(one, other, strict=True))
    prompt = [5, 6, 7]
    assert Draws(1.0, 0, prompt).number() != Draws(1.0, 0, [*prompt, 8]).number()


def test_greedy_rows_are_untouched_beside_sampled_ones(model: Any, tokenizer: Any) -> None:
    alone = _made(model, tokenizer, _rows(tokenizer, temperature=0.0))
    mixed = _rows(tokenizer)
    for place in (0, 2):
        mixed[place].draws = None
    made = _made(model, tokenizer, mixed)
    assert [made[0], made[2]] == [alone[0], alone[2]]
    assert made[1] != alone[1]


def test_the_verdict_is_read_and_not_drawn(model: Any, tokenizer: Any) -> None:
    """Log-odds are those of a plain forward at temperature 1 over the sampled thought; the threshold decides."""
    ids = {text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (" refuse", " comply")}
    lead = tuple(tokenizer("\nVerdict:", add_special_tokens=False)["input_ids"])
    close = tuple(tokenizer("\n</think>\n", add_special_tokens=False)["input_ids"])
    verdict = VerdictTokens("Verdict:", lead, ids[" refuse"], ids[" comply"], "</think>", close)
    thoughts = set()
    for seed in range(6):
        prompt = list(tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"])
        row = Row(0, prompt, 3, watch=True, think_budget=7, draws=draws_for(3.0, seed, prompt))
        Decoder(model, tokenizer, NO_END).run([row], verdict)
        with torch.no_grad():
            logits = model(torch.tensor([row.prompt + row.made[: row.verdict_at]])).logits[0, -1]
        odds = float(logits[verdict.refuse[0]] - logits[verdict.comply[0]])
        assert row.log_odds == pytest.approx(odds, abs=1e-4)
        assert row.refuses == (odds >= 0.0)
        thoughts.add(tuple(row.made[:7]))
    assert len(thoughts) > 3


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    return LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path_factory.mktemp("a")), dtype="float32")


def _asked(seed: int, temperature: float = 1.0) -> Conversation:
    return Conversation(messages=as_messages("Hello"), think_budget=6, temperature=temperature, sample_seed=seed)


def test_seeded_conversations_are_samples(thinker: LocalModel) -> None:
    replies = thinker.reply([_asked(0), _asked(1), _asked(0), _asked(0, 0.0)], 4, threshold=math.inf)
    assert replies == thinker.reply([_asked(0), _asked(1), _asked(0), _asked(0, 0.0)], 4, threshold=math.inf)
    first, second, again, greedy = (reply for reply in replies if isinstance(reply, Response))
    assert first == again
    assert len({first.reasoning_text, second.reasoning_text, greedy.reasoning_text}) == 3
    (plain,) = thinker.reply([Conversation(messages=as_messages("Hello"), think_budget=6)], 4, threshold=math.inf)
    assert isinstance(plain, Response)
    assert (greedy.reasoning_text, greedy.answer) == (plain.reasoning_text, plain.answer)


def test_samples_behind_one_prompt_are_not_answered_as_one(tmp_path: Path) -> None:
    """The base's answers are asked once a prompt where they are greedy, and once a sample where they are not."""
    model = LocalModel.load(str(tiny_folder()))
    replies = model.reply([_asked(seed) for seed in range(4)] + [_asked(3, 0.0), _asked(4, 0.0)], 6)
    answers = [reply.answer for reply in replies if isinstance(reply, Response)]
    assert len(set(answers[:4])) == 4
    assert answers[4] == answers[5]


def test_known_greedy_answers_are_not_given_for_samples(tmp_path: Path) -> None:
    model = LocalModel.load(str(tiny_folder()))
    model.known_answers = {(model.prompt_text(as_messages("Hello")), 4): Response(answer="known")}
    replies = model.reply([_asked(0), _asked(0, 0.0)], 4)
    assert [reply.answer == "known" for reply in replies if isinstance(reply, Response)] == [False, True]


def test_a_greedy_conversation_is_dumped_as_before() -> None:
    """Keys of stored answers and seeds of other draws are made of dumps."""
    greedy = Conversation(messages=as_messages("Hello"))
    assert set(greedy.model_dump()) == {"messages", "prefill", "think_budget"}
    sampled = _asked(2)
    assert Conversation.model_validate_json(sampled.model_dump_json()) == sampled
    assert len({one.model_dump_json() for one in (greedy, sampled, _asked(3), _asked(2, 0.5))}) == 4
