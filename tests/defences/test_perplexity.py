"""The perplexity filter: losses and windows worked out by hand, thresholds from harmless texts."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch

from forethought.defences import likelihood
from forethought.defences.base import REFUSAL
from forethought.defences.likelihood import (
    NOTHING_TO_READ,
    PerplexityFilter,
    PerplexitySettings,
    log_perplexity,
    token_losses,
)
from forethought.models.conversation import Conversation, Response
from forethought.models.local import LocalModel
from forethought.records import Message
from tests.scripted import Scripted
from tests.tiny import tiny_model, tiny_tokenizer

TEXTS = ("How do I bake bread?", "zq ]{ vorp", "Name the planets of the solar system, please, in order.")


@lru_cache(maxsize=1)
def _reader() -> LocalModel:
    return LocalModel(tiny_model(), tiny_tokenizer(), None)


def _by_hand(text: str) -> list[float]:
    """One pass a token, each asked for by its own prefix."""
    tokenizer, model = _reader().tokenizer, _reader().model
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    losses = []
    for place in range(1, len(ids)):
        with torch.inference_mode():
            logits = model(torch.tensor([ids[:place]])).logits[0, -1].double()
        losses.append(float(torch.logsumexp(logits, 0) - logits[ids[place]]))
    return losses


def _asked(*texts: str) -> Conversation:
    roles = ["user", "assistant"] * len(texts)
    turns = zip(roles, texts, strict=False)
    return Conversation(messages=tuple(Message.model_validate({"role": role, "content": text}) for role, text in turns))


def test_losses_equal_those_worked_out_token_by_token_in_a_batch_of_several_lengths() -> None:
    found = token_losses(_reader().model, _reader().tokenizer, [*TEXTS, ""])
    for text, losses in zip(TEXTS, found, strict=False):
        assert losses == pytest.approx(_by_hand(text), abs=1e-4)
    assert found[3] == []


def test_a_long_text_is_read_in_pieces_none_of_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "_PIECE_TOKENS", 4)
    tokenizer = _reader().tokenizer
    ids = tokenizer(TEXTS[2], add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode(ids[start : start + 4]) for start in range(0, len(ids), 4)]
    assert len(pieces) > 2
    found = token_losses(_reader().model, tokenizer, [TEXTS[2]])[0]
    assert found == pytest.approx([loss for piece in pieces for loss in _by_hand(piece)], abs=1e-4)


def test_the_most_improbable_window_counts() -> None:
    losses = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert log_perplexity(losses, 0) == 3.0
    assert log_perplexity(losses, 9) == 3.0
    assert log_perplexity(losses, 2) == 4.5  # [1 2] [3 4] [4 5]: the last one reaches back
    assert log_perplexity([5.0, 1.0, 2.0, 2.0], 2) == 3.0
    assert log_perplexity([1.0, 5.0, 5.0, 1.0], 2) == 3.0  # side by side, not sliding
    assert log_perplexity([], 2) is None


def test_the_threshold_refuses_no_more_of_the_harmless_texts_than_allowed() -> None:
    scores = PerplexityFilter(Scripted(lambda _: "x"), _reader(), threshold=1.0).scores([[text] for text in TEXTS])
    ranked = sorted(score for score in scores if score is not None)
    assert len(ranked) == 3
    for share, refused in ((0.0, 0), (0.34, 1), (0.67, 2)):
        settings = PerplexitySettings(max_false_refusal=share)
        threshold = PerplexityFilter(Scripted(lambda _: "x"), _reader(), TEXTS, settings).threshold
        assert sum(score >= threshold for score in ranked) == refused
    assert PerplexityFilter(Scripted(lambda _: "x"), _reader()).threshold == math.inf


def test_an_improbable_turn_anywhere_is_refused_and_others_get_an_answer_with_their_score() -> None:
    window = PerplexitySettings(window=0)
    plain, odd = (sum(_by_hand(text)) / len(_by_hand(text)) for text in TEXTS[:2])
    low, high = (TEXTS[0], TEXTS[1]) if plain < odd else (TEXTS[1], TEXTS[0])
    inner = Scripted(lambda _: "Mix it.")
    defended = PerplexityFilter(inner, _reader(), settings=window, threshold=(plain + odd) / 2)
    given = [_asked(low), _asked(high), _asked(high, "yes", low), _asked(low, high, low)]
    replies = defended.reply(given)
    # What the assistant said is not the user's to answer for.
    assert [getattr(reply, "answer", "") for reply in replies] == ["Mix it.", REFUSAL, REFUSAL, "Mix it."]
    for reply, score in zip(replies, (min(plain, odd), *[max(plain, odd)] * 2, min(plain, odd)), strict=True):
        assert isinstance(reply, Response)
        assert reply.log_odds == pytest.approx(score, abs=1e-4)
    assert len(inner.asked) == 2


def test_what_has_no_perplexity_fails_closed_or_open_and_says_so() -> None:
    for closed, answer in ((True, REFUSAL), (False, "Mix it.")):
        settings = PerplexitySettings(fail_closed=closed)
        defended = PerplexityFilter(Scripted(lambda _: "Mix it."), _reader(), settings=settings, threshold=0.0)
        for reply in defended.reply([_asked(""), Conversation(messages=())]):
            assert isinstance(reply, Response)
            assert (reply.answer, reply.log_odds) == (answer, None)
            assert reply.cause.endswith(NOTHING_TO_READ)


def test_an_empty_turn_hides_nothing_and_a_loss_that_is_no_number_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    defended = PerplexityFilter(Scripted(lambda _: "x"), _reader(), threshold=0.0)
    assert defended.scores([["", TEXTS[0]]]) == defended.scores([[TEXTS[0]]])
    monkeypatch.setattr(likelihood, "token_losses", lambda *_: [[1.0], [math.nan]])
    assert defended.scores([["a", "b"]]) == [None]


def test_a_tokenizer_without_a_beginning_leaves_out_the_first_token() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    tokenizer.bos_token = None
    found = token_losses(_reader().model, tokenizer, [TEXTS[0], tokenizer.decode(ids[:1])])
    assert [len(losses) for losses in found] == [len(ids) - 1, 0]
    with torch.inference_mode():
        logits = _reader().model(torch.tensor([ids[:1]])).logits[0, -1].double()
    assert found[0][0] == pytest.approx(float(torch.logsumexp(logits, 0) - logits[ids[1]]), abs=1e-4)
