"""Chunked log-probabilities: by hand, against log_softmax, and against the models that shape their logits."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from forethought.training import forward
from forethought.training.forward import add_taught_head, logit_shape, target_log_probs

PLAIN = SimpleNamespace()


def _head(weight: torch.Tensor, bias: torch.Tensor | None = None, trained: bool = False) -> torch.nn.Linear:
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias is not None:
            head.bias.copy_(bias)
    return head.requires_grad_(trained)


def test_two_words_by_hand() -> None:
    """Logits (ln 3, 0): probabilities 3/4 and 1/4; the slope in the logits is (1 - p, -(1 - p))."""
    hidden = torch.tensor([[math.log(3.0), 0.0]], requires_grad=True)
    found = target_log_probs(_head(torch.eye(2)), hidden, torch.tensor([0]), PLAIN)
    assert found.item() == pytest.approx(math.log(0.75))
    (3.0 * found).sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.75, -0.75]]))


def test_factor_and_cap_by_hand() -> None:
    """Half of 2 ln 3, capped at 2: 2 tanh(ln 3 / 2) = 1, and 0. The cap's slopes there are 1 - 1/4 and 1."""
    hidden = torch.tensor([[2 * math.log(3.0), 0.0]], requires_grad=True)
    config = SimpleNamespace(logit_scale=0.5, final_logit_softcapping=2.0)
    found = target_log_probs(_head(torch.eye(2)), hidden, torch.tensor([0]), config)
    p = math.e / (math.e + 1)
    assert found.item() == pytest.approx(math.log(p))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, torch.tensor([[(1 - p) * 0.75 * 0.5, -(1 - p) * 0.5]]))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("factor", "cap"), [(1.0, None), (0.3, None), (1.0, 2.0), (1.7, 3.0)])
def test_values_and_gradients_are_those_of_log_softmax(
    monkeypatch: pytest.MonkeyPatch, factor: float, cap: float | None, biased: bool
) -> None:
    monkeypatch.setattr(forward, "CHUNK", 4)  # ten tokens: two whole chunks and a part of one
    torch.manual_seed(0)
    weight, bias = torch.randn(17, 8), torch.randn(17) if biased else None
    targets, behind = torch.randint(0, 17, (10,)), torch.randn(10)
    one = torch.randn(10, 8, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    config = SimpleNamespace(logit_scale=factor, final_logit_softcapping=cap)
    found = target_log_probs(_head(weight, bias), one, targets, config)
    logits = torch.nn.functional.linear(other, weight, bias) * factor
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    expected = logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (found * behind).sum().backward()  # type: ignore[no-untyped-call]
    (expected * behind).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_head_that_is_trained_gets_its_gradient() -> None:
    torch.manual_seed(0)
    weight, hidden, targets = torch.randn(7, 5), torch.randn(3, 5), torch.tensor([1, 6, 0])
    trained = _head(weight, trained=True)
    found = target_log_probs(trained, hidden, targets, PLAIN)
    torch.testing.assert_close(found, target_log_probs(_head(weight), hidden, targets, PLAIN))
    found.sum().backward()  # type: ignore[no-untyped-call]
    expected = (torch.nn.functional.one_hot(targets, 7) - (hidden @ weight.T).softmax(-1)).T @ hidden
    torch.testing.assert_close(trained.weight.grad, expected)


def test_the_table_of_all_tokens_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "CHUNK", 4)
    sizes: list[int] = []
    real = torch.nn.functional.linear

    def watched(*given: Any) -> torch.Tensor:
        made = real(*given)
        sizes.append(made.shape[0])
        return made

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    hidden = torch.randn(10, 5, requires_grad=True)
    target_log_probs(_head(torch.randn(7, 5)), hidden, torch.zeros(10, dtype=torch.long), PLAIN).sum().backward()  # type: ignore[no-untyped-call]
    assert sizes == [4, 4, 2]  # and none again in the backward pass


def test_no_taught_token_is_no_error() -> None:
    hidden = torch.zeros(0, 5, requires_grad=True)
    found = target_log_probs(_head(torch.randn(7, 5)), hidden, torch.zeros(0, dtype=torch.long), PLAIN)
    assert found.shape == (0,)
    found.sum().backward()  # type: ignore[no-untyped-call]


_SIZE: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.5, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "kind", "shape"),
    [
        (CohereConfig(**_SIZE, logit_scale=0.25), CohereForCausalLM, (0.25, None)),
        (GraniteConfig(**_SIZE, logits_scaling=4.0), GraniteForCausalLM, (0.25, None)),
        (Gemma2Config(**_SIZE, final_logit_softcapping=3.0), Gemma2ForCausalLM, (1.0, 3.0)),
    ],
)
def test_models_that_shape_their_logits(config: Any, kind: Any, shape: tuple[float, float | None]) -> None:
    assert logit_shape(config) == shape
    torch.manual_seed(0)
    model = kind(config).eval().requires_grad_(False)
    ids = torch.randint(3, 61, (2, 7))
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1].float()
        add_taught_head(model)
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, taught_only=True).log_probs
    expected = logits.log_softmax(-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
