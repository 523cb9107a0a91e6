"""The taught head: the same numbers as all logits, for a part of the work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from forethought.training.forward import add_taught_head
from forethought.training.rows import IGNORED


def _model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, 61, (3, 9))
    labels = ids.clone()
    labels[:, :4] = IGNORED
    labels[1, 6:] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def _full(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the next tokens from all logits, and where they are taught."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
    targets = batch["labels"][:, 1:]
    taught = targets != IGNORED
    chosen = logits.log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return chosen * taught, taught


def test_taught_head_equals_full_logits(batch: dict[str, torch.Tensor]) -> None:
    model = _model()
    expected, taught = _full(model, batch)
    add_taught_head(model)
    out = model(**batch, taught_only=True)
    assert torch.equal(out.taught, taught)
    torch.testing.assert_close(out.log_probs, expected, rtol=1e-5, atol=1e-5)
    assert not out.log_probs[~taught].any()


def test_gradients_equal_those_of_full_logits(batch: dict[str, torch.Tensor]) -> None:
    plain, patched = _model(), _model()
    _full(plain, batch)[0].sum().backward()  # type: ignore[no-untyped-call]
    add_taught_head(patched)
    patched(**batch, taught_only=True).log_probs.sum().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), patched.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_projection_runs_on_taught_positions_alone(batch: dict[str, torch.Tensor]) -> None:
    model = _model()
    add_taught_head(model)
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda module, args, out: rows.append(out.shape[0]))
    model(**batch, taught_only=True)
    assert rows == [int((batch["labels"][:, 1:] != IGNORED).sum())]


def test_forward_is_as_before_without_the_flag(batch: dict[str, torch.Tensor]) -> None:
    plain, patched = _model(), _model()
    add_taught_head(patched)
    expected, got = plain(**batch), patched(**batch)
    torch.testing.assert_close(got.logits, expected.logits)
    torch.testing.assert_close(got.loss, expected.loss)


def test_nothing_taught_is_no_error(batch: dict[str, torch.Tensor]) -> None:
    model = _model()
    add_taught_head(model)
    out = model(**batch | {"labels": torch.full_like(batch["labels"], IGNORED)}, taught_only=True)
    assert not out.taught.any()
    assert not out.log_probs.any()
