"""Attention written out for short rows: the same numbers as transformers' own, and only where it is faster."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from forethought.training import forward
from forethought.training.config import TrainConfig
from forethought.training.forward import LONGEST, WRITTEN_OUT, attend, suit_attention
from forethought.training.trainer import _leave_inputs_alone, lora
from tests.tiny import tiny_model

GROUPS = 3


class Module(torch.nn.Module):
    num_key_value_groups = GROUPS


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(query, key, value) of two rows, six heads on two key heads, five tokens; each wants a gradient."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 5, 4, requires_grad=True) for heads in (6, 2, 2))
    return query, key, value


def _mask() -> torch.Tensor:
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    mask: torch.Tensor = eager_mask(batch_size=2, q_length=5, kv_length=5, attention_mask=real)
    return mask


@pytest.mark.parametrize("masked", [True, False])
def test_results_and_gradients_are_those_of_eager_attention(masked: bool) -> None:
    mask = _mask() if masked else None
    found = []
    for run in (attend, eager_attention_forward):
        inputs = query, key, value = _inputs()
        out, _ = run(Module(), query, key, value, mask, scaling=0.5)
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        found.append([out, *(tensor.grad for tensor in inputs)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_one_head_by_hand() -> None:
    """Scores 0 and ln 3 after scaling: weights a quarter and three quarters."""
    query = torch.tensor([[[[1.0]]]])
    key = torch.tensor([[[[0.0], [2 * torch.log(torch.tensor(3.0))]]]])
    value = torch.tensor([[[[4.0], [8.0]]]])
    out, _ = attend(Module(), query, key, value, None, scaling=0.5)
    assert out.item() == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("fast", "longest", "window", "switched"),
    [(True, LONGEST, None, True), (True, LONGEST + 1, None, False), (False, 8, None, False), (True, 8, 64, False)],
)
def test_it_is_used_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, fast: bool, longest: int, window: int | None, switched: bool
) -> None:
    monkeypatch.setattr(forward, "batches_in_bfloat16", lambda: fast)
    model: Any = tiny_model()
    model.config.sliding_window = window
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        before = model(ids, attention_mask=mask).logits
        suit_attention(model, longest)
        after = model(ids, attention_mask=mask).logits
    assert (model.config._attn_implementation == WRITTEN_OUT) is switched
    torch.testing.assert_close(after[mask.bool()], before[mask.bool()], rtol=1e-4, atol=1e-4)


def test_inputs_of_an_adapter_are_cast_once_and_the_numbers_stay() -> None:
    model: Any = get_peft_model(tiny_model().to(torch.bfloat16), lora(TrainConfig(rank=2), 2))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(ids).logits
        _leave_inputs_alone(model)
        after = model(ids).logits
    torch.testing.assert_close(after, before)
