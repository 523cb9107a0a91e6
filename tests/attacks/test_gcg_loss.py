"""The loss of a target string and its gradient, against values that are worked out plainly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch

from forethought.attacks.searches.weights.gcg import TargetLoss
from tests.tiny import tiny_model

HEAD, TAIL, TARGET = [5, 90, 17, 300], [44, 45], [700, 21, 9]
SUFFIX = torch.tensor([60, 61, 62, 63, 64])


@lru_cache(maxsize=1)
def model() -> Any:
    return tiny_model()


def target_loss(**options: Any) -> TargetLoss:
    return TargetLoss(model(), HEAD, TAIL, TARGET, **options)


def by_hand(suffix: torch.Tensor, tail: Sequence[int] = TAIL) -> float:
    """The loss from the model's logits at every position of the whole sequence."""
    ids = torch.tensor([[*HEAD, *suffix.tolist(), *tail, *TARGET]])
    with torch.no_grad():
        log_probs = model()(input_ids=ids).logits[0].log_softmax(-1)
    first = ids.shape[1] - len(TARGET)
    return -sum(float(log_probs[first + place - 1, token]) for place, token in enumerate(TARGET)) / len(TARGET)


def candidates() -> torch.Tensor:
    """Changed at the last place, the first, one between, nowhere, and at two places."""
    rows = SUFFIX.repeat(5, 1)
    rows[0, 4], rows[1, 0], rows[2, 2] = 1000, 1001, 1002
    rows[4, 1] = rows[4, 3] = 1003
    return rows


def test_losses_are_those_worked_out_from_the_logits() -> None:
    found = target_loss().losses(candidates(), SUFFIX)
    assert found.tolist() == pytest.approx([by_hand(row) for row in candidates()], abs=1e-4)
    assert len({round(loss, 3) for loss in found.tolist()}) == 5


def test_losses_do_not_depend_on_the_batch() -> None:
    loss = target_loss()
    whole = loss.losses(candidates(), SUFFIX)
    loss._rows = 2
    assert torch.allclose(loss.losses(candidates(), SUFFIX), whole, atol=1e-5)
    assert torch.allclose(loss.losses(candidates()), whole, atol=1e-5)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = target_loss()
    expected = loss.losses(candidates(), SUFFIX)
    whole = TargetLoss._batch

    def narrow(self: TargetLoss, suffixes: torch.Tensor, *args: Any) -> torch.Tensor:
        if len(suffixes) > 1:
            raise torch.OutOfMemoryError("no room")
        return whole(self, suffixes, *args)

    monkeypatch.setattr(TargetLoss, "_batch", narrow)
    assert torch.allclose(loss.losses(candidates(), SUFFIX), expected, atol=1e-5)
    assert loss._rows == 1


def test_mellowmax_is_that_of_the_negated_logits() -> None:
    ids = torch.tensor([[*HEAD, *SUFFIX.tolist(), *TAIL, *TARGET]])
    with torch.no_grad():
        logits = model()(input_ids=ids).logits[0, -4:-1]
    wanted = torch.tensor([float(logits[place, token]) for place, token in enumerate(TARGET)])
    expected = float((-wanted).exp().mean().log())
    assert float(target_loss(mellowmax=True).losses(SUFFIX[None])[0]) == pytest.approx(expected, abs=1e-4)


def test_the_gradient_is_that_by_the_one_hot_vectors() -> None:
    embed = model().get_input_embeddings()
    one_hot = torch.nn.functional.one_hot(SUFFIX, embed.num_embeddings).float().requires_grad_()
    fixed = embed(torch.tensor([*HEAD, *TAIL, *TARGET])).detach()
    sequence = torch.cat([fixed[:4], one_hot @ embed.weight, fixed[4:]])
    logits = model()(inputs_embeds=sequence[None]).logits[0, -4:-1]
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, torch.tensor(TARGET)), one_hot)
    found = target_loss().gradient(SUFFIX)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_gradient_foretells_a_small_step() -> None:
    """Finite differences: towards another token's embedding by a hundredth."""
    embed = model().get_input_embeddings()
    gradient = target_loss().gradient(SUFFIX)
    fixed, own = embed(torch.tensor([*HEAD, *TAIL, *TARGET])).detach(), embed(SUFFIX).detach()

    def at(share: float) -> float:
        moved = own.clone()
        moved[2] += share * (embed.weight[1002] - embed.weight[62]).detach()
        sequence = torch.cat([fixed[:4], moved, fixed[4:]]).double()
        with torch.no_grad():
            logits = double(inputs_embeds=sequence[None]).logits[0, -4:-1]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(TARGET)))

    double = tiny_model().double()
    slope = (at(1e-4) - at(-1e-4)) / 2e-4
    assert float(gradient[2, 1002] - gradient[2, 62]) == pytest.approx(slope, rel=1e-2)


def test_the_models_own_gradients_and_caches_stay_untouched() -> None:
    loss = target_loss()
    before = loss.losses(candidates(), SUFFIX)
    loss.gradient(SUFFIX)
    loss.predicted(SUFFIX)
    assert torch.equal(loss.losses(candidates(), SUFFIX), before)
    assert all(one.grad is None for one in loss.weights.parameters())
    assert not loss.weights.get_output_embeddings()._forward_pre_hooks


def test_predicted_holds_where_greedy_decoding_writes_the_target() -> None:
    ids = torch.tensor([[*HEAD, *SUFFIX.tolist(), *TAIL]])
    for _ in range(3):
        with torch.no_grad():
            ids = torch.cat([ids, model()(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    written = ids[0, -3:].tolist()
    assert TargetLoss(model(), HEAD, TAIL, written).predicted(SUFFIX)
    other = [written[0], written[1], written[2] + 1]
    assert not TargetLoss(model(), HEAD, TAIL, other).predicted(SUFFIX)


def test_a_prompt_without_a_tail_and_a_suffix_of_one_token() -> None:
    loss = TargetLoss(model(), HEAD, [], TARGET)
    rows = torch.tensor([[7], [8]])
    for row, found in zip(rows, loss.losses(rows, rows[0]), strict=True):
        assert float(found) == pytest.approx(by_hand(row, []), abs=1e-4)


def test_context_is_entered_for_every_pass() -> None:
    entered: list[str] = []

    class Switch:
        def __enter__(self) -> None:
            entered.append("in")

        def __exit__(self, *error: object) -> None:
            entered.append("out")

    loss = target_loss(context=Switch)
    loss.losses(candidates(), SUFFIX)
    loss.gradient(SUFFIX)
    assert entered == ["in", "out", "in", "out"]
