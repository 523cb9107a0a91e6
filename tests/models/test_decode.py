"""Decoding: what transformers would write, and a verdict that is steered and measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from forethought.models.decode import VERDICT_TOKENS, Decoder, Row, VerdictTokens
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = ("Hello", "What is the capital of Norway, and how many people live there?", "Name three kinds of pasta.", "a")
NO_END = frozenset({0})


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module")
def verdict(tokenizer: Any) -> VerdictTokens:
    return VerdictTokens(
        anchor="Verdict:",
        lead_in=tuple(_ids(tokenizer, "\nVerdict:")),
        refuse=tuple(_ids(tokenizer, " refuse")),
        comply=tuple(_ids(tokenizer, " comply")),
        closing="</think>",
        close=tuple(_ids(tokenizer, "\n</think>\n")),
    )


def _generated(model: Any, prompt: list[int], n: int, end: int) -> list[int]:
    """What transformers' own greedy generation writes."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, eos_token_id=end, pad_token_id=0
    )
    return [int(token) for token in out[0, len(prompt) :]]


def test_batched_greedy_equals_generate(model: Any, tokenizer: Any) -> None:
    prompts = [_ids(tokenizer, text) for text in PROMPTS]
    rows = [Row(index, prompt, max_new=6 + 3 * index) for index, prompt in enumerate(prompts)]
    Decoder(model, tokenizer, NO_END).run(rows)
    for row, prompt in zip(rows, prompts, strict=True):
        assert row.made == _generated(model, prompt, row.max_new, end=0)


def test_rows_end_where_generate_ends(model: Any, tokenizer: Any) -> None:
    """Rows leave the batch at their own end; the others go on undisturbed."""
    prompts = [_ids(tokenizer, text) for text in PROMPTS]
    end = _generated(model, prompts[1], 8, end=0)[3]
    rows = [Row(index, prompt, max_new=12) for index, prompt in enumerate(prompts)]
    Decoder(model, tokenizer, frozenset({end})).run(rows)
    for row, prompt in zip(rows, prompts, strict=True):
        assert row.made == _generated(model, prompt, 12, end=end)
    assert rows[1].made[-1] == end
    assert max(len(row.made) for row in rows) == 12


def test_small_batches_change_nothing_and_report_progress(model: Any, tokenizer: Any) -> None:
    rows, others = ([Row(i, _ids(tokenizer, text), max_new=6) for i, text in enumerate(PROMPTS)] for _ in range(2))
    done = [row.index for row in Decoder(model, tokenizer, NO_END, batch_size=3).stream(iter(rows))]
    Decoder(model, tokenizer, NO_END).run(others)
    assert [row.made for row in rows] == [row.made for row in others]
    assert sorted(done) == [0, 1, 2, 3]


def _watched(tokenizer: Any, max_new: int = 4) -> list[Row]:
    """Rows that come to the anchor by themselves: it is forced on them, as if the model had written it."""
    anchor = _ids(tokenizer, "Intent: say hello.\nVerdict:")
    return [Row(i, _ids(tokenizer, text), max_new, watch=True, forced=list(anchor)) for i, text in enumerate(PROMPTS)]


@pytest.mark.parametrize(("threshold", "word"), [(-math.inf, "refuse"), (math.inf, "comply")])
def test_threshold_decides_the_verdict(
    model: Any, tokenizer: Any, verdict: VerdictTokens, threshold: float, word: str
) -> None:
    rows = _watched(tokenizer)
    Decoder(model, tokenizer, NO_END).run(rows, verdict, threshold)
    for row in rows:
        assert row.refuses is (word == "refuse")
        assert row.verdict_at is not None
        assert tokenizer.decode(row.made[row.verdict_at :]).startswith(f" {word}")
        assert not row.led


def test_log_odds_are_those_of_a_plain_forward(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    """Padded and cached, and still the logits of the whole sequence alone."""
    rows = _watched(tokenizer)
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row.prompt + row.made[: row.verdict_at]])).logits[0, -1]
        assert row.log_odds is not None
        assert row.log_odds == pytest.approx(float(logits[verdict.refuse[0]] - logits[verdict.comply[0]]), abs=1e-4)
        assert row.refuses == (row.log_odds >= 0.0)


def test_threshold_is_included_in_refusing(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    rows = _watched(tokenizer)[:1]
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    odds = rows[0].log_odds
    assert odds is not None
    for threshold, refuses in ((odds, True), (math.nextafter(odds, math.inf), False)):
        again = _watched(tokenizer)[:1]
        Decoder(model, tokenizer, NO_END).run(again, verdict, threshold)
        assert again[0].refuses is refuses


def test_a_thought_that_rambles_on_after_its_verdict_is_closed(
    model: Any, tokenizer: Any, verdict: VerdictTokens
) -> None:
    """A random model never closes its thought by itself; the answer has its own room all the same."""
    rows = _watched(tokenizer, max_new=5)
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    for row in rows:
        assert row.closed_at == (row.verdict_at or 0) + VERDICT_TOKENS
        assert len(row.made) - row.closed_at == 5
        assert tokenizer.decode(row.made[: row.closed_at]).endswith("\n</think>\n")


def test_a_turn_that_would_end_at_its_verdict_is_answered(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    """The model's own end before the marker closes the thought; only one behind it ends the turn."""
    row = _watched(tokenizer, max_new=3)[0]
    Decoder(model, tokenizer, NO_END).run([row], verdict)
    after = (row.verdict_at or 0) + len(verdict.refuse if row.refuses else verdict.comply)
    again = _watched(tokenizer, max_new=3)[0]
    Decoder(model, tokenizer, frozenset({row.made[after]})).run([again], verdict)
    assert again.made[:after] == row.made[:after]
    assert tuple(again.made[after : after + len(verdict.close)]) == verdict.close
    assert again.closed_at is not None


def test_verdict_alone_stops_there(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    rows = _watched(tokenizer)
    for row in rows:
        row.stop_at_verdict = True
    Decoder(model, tokenizer, NO_END).run(rows, verdict, threshold=-math.inf)
    assert all(tokenizer.decode(row.made).endswith("Verdict: refuse") for row in rows)


def test_spent_budget_leads_to_the_anchor(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    """A random model never writes the anchor: its rows have to be led there, and say so."""
    rows = [Row(i, _ids(tokenizer, text), 3, watch=True, think_budget=4) for i, text in enumerate(PROMPTS)]
    Decoder(model, tokenizer, NO_END).run(rows, verdict)
    for row in rows:
        assert row.led
        assert row.log_odds is not None
        assert row.made[4 : 4 + len(verdict.lead_in)] == list(verdict.lead_in)
        assert row.verdict_at == 4 + len(verdict.lead_in)


def test_thought_that_ends_without_a_verdict_is_led_to_one(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    prompt = _ids(tokenizer, PROMPTS[1])
    end = _generated(model, prompt, 4, end=0)[3]  # none that the lead-in has, too
    row = Row(0, prompt, 3, watch=True, think_budget=50)
    Decoder(model, tokenizer, frozenset({end})).run([row], verdict)
    assert row.led
    assert row.log_odds is not None
    # The end that the model wanted is replaced, not kept before the anchor.
    assert end not in row.made[: row.verdict_at]


def test_unwatched_rows_have_no_verdict(model: Any, tokenizer: Any, verdict: VerdictTokens) -> None:
    row = Row(0, _ids(tokenizer, PROMPTS[0]), 4)
    Decoder(model, tokenizer, NO_END).run([row], verdict)
    assert (row.log_odds, row.refuses, row.led) == (None, None, False)


class _Script:
    """A model that writes given tokens, whatever it is asked."""

    device = torch.device("cpu")
    dtype = torch.float32
    config = LlamaConfig(num_hidden_layers=1)

    def __init__(self, tokens: list[int], size: int) -> None:
        self._tokens, self._size = tokens, size

    def get_decoder(self) -> Any:
        return lambda **kwargs: None

    def __call__(self, input_ids: torch.Tensor, past_key_values: Any, **kwargs: Any) -> CausalLMOutputWithPast:
        logits = torch.zeros(len(input_ids), 1, self._size)
        logits[:, -1, self._tokens.pop(0)] = 1.0
        return CausalLMOutputWithPast(logits=logits)


def _scripted(tokenizer: Any, text: str) -> Decoder:
    return Decoder(_Script(_ids(tokenizer, text), len(tokenizer)), tokenizer, NO_END)


def test_answer_from_elsewhere_stops_where_the_thought_closes(tokenizer: Any, verdict: VerdictTokens) -> None:
    text = "Intent: say hello.\nVerdict: comply. No rule applies.\n</think>\nHello to you and all the others"
    row = Row(0, [5], 40, watch=True, stop_at_comply=True)
    _scripted(tokenizer, text).run([row], verdict, threshold=math.inf)
    assert not row.led
    assert tokenizer.decode(row.made).strip().endswith("</think>")


def test_refusal_is_written_to_its_limit_all_the_same(tokenizer: Any, verdict: VerdictTokens) -> None:
    text = "Intent: say hello.\nVerdict: refuse. R4 Fraud: it would cheat.\n</think>\nI can't help with that, sorry."
    row = Row(0, [5], 6, watch=True, stop_at_comply=True)
    _scripted(tokenizer, text).run([row], verdict, threshold=-math.inf)
    assert row.refuses is True
    assert row.closed_at is not None
    assert len(row.made) - row.closed_at == 6


def test_closing_before_a_verdict_is_led(tokenizer: Any, verdict: VerdictTokens) -> None:
    """A thought that closes at once, as under forced empty thinking, must still decide."""
    row = Row(0, [5], 2, watch=True)
    _scripted(tokenizer, "Intent: hi\n</think>" + " and" * (VERDICT_TOKENS + 20)).run([row], verdict)
    assert row.led
    assert "</think>" not in tokenizer.decode(row.made[: row.verdict_at])
