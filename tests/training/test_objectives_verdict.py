"""Losses that look harder at what decides: weights, pivots, and one verdict for all disguises. By hand, and at work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from forethought.policy import default_policy
from forethought.training.config import TrainConfig
from forethought.training.fit import train
from forethought.training.forward import add_taught_head
from forethought.training.methods.base import Material
from forethought.training.methods.verdict import (
    CONSISTENT,
    REASONING_FIRST,
    ConsistencyObjective,
    PivotObjective,
    pivot_loss,
    verdict_divergence,
)
from forethought.training.objective import Batch, PairedObjective, Step, paired_loss
from forethought.training.rows import IGNORED, TokenRow, collate
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_model, tiny_tokenizer

CONFIG = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, seed=3, epochs=6)


@pytest.fixture
def adapted() -> Any:
    torch.manual_seed(0)
    model = tiny_model()
    add_taught_head(model)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(model, config).eval()


@pytest.fixture(scope="module")
def material() -> Material:
    """Four harmful and four harmless requests, each once disguised."""
    plain = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(4)]
    plain += [harmless_example("How do I bake bread" + " today" * n + "?") for n in range(4)]
    styled = [
        one.model_copy(update={"request": one.request.restyled(f"Yo, {one.request.text}", "slang")}) for one in plain
    ]
    return Material([*plain, *styled], tiny_tokenizer(), default_policy())


def _batch(rows: list[TokenRow]) -> Batch:
    return collate([row.model_dump() for row in rows], pad_id=0)


# Weights.


def test_weighted_loss_by_hand() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -4.0, -5.0]])
    taught = torch.tensor([[True, True, False], [False, True, True]])
    weights = torch.tensor([[1.0, 3.0, 7.0], [7.0, 2.0, 1.0]])
    loss, values = paired_loss(log_probs, taught, torch.tensor([0, 1]), 0.5, Step(), weights)
    # The untaught tokens' weights count nothing: (1 + 3 * 2) / 4, and (2 * 4 + 5) / 3.
    assert values == {"refusal": pytest.approx(7 / 4), "benign": pytest.approx(13 / 3)}
    assert float(loss) == pytest.approx(7 / 4 + 0.5 * 13 / 3)


def test_weights_of_one_size_change_nothing() -> None:
    log_probs, taught = -torch.rand(3, 5), torch.ones(3, 5, dtype=torch.bool)
    plain = paired_loss(log_probs, taught, torch.tensor([0, 1, 0]), 1.0)
    same = paired_loss(log_probs, taught, torch.tensor([0, 1, 0]), 1.0, weights=torch.full((3, 5), 2.5))
    assert float(plain[0]) == pytest.approx(float(same[0]))


def test_a_weight_belongs_to_the_token_that_is_predicted(adapted: Any) -> None:
    """Logits stand one place before the token that they predict."""
    ids = (5, 6, 7, 8)
    row = TokenRow(input_ids=ids, labels=(IGNORED, 6, 7, 8), term=0, weights=(9.0, 1.0, 4.0, 1.0))
    batch = _batch([row])
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        log_probs = adapted(**inputs, taught_only=True).log_probs[0]
        loss, _ = PairedObjective().loss(adapted, batch, Step())
    expected = -(log_probs[0] + 4 * log_probs[1] + log_probs[2]) / 6
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


# Pivots.


def test_pivot_loss_by_hand() -> None:
    safe, unsafe = 3, 8
    labels = torch.tensor([[safe, 1, safe, unsafe], [unsafe, IGNORED, 2, 2]])
    rivals = torch.tensor([[unsafe, IGNORED, unsafe, safe], [IGNORED, safe, IGNORED, IGNORED]])
    margins = torch.tensor([[2.0, 5.0, -1.0, 0.5], [5.0, 5.0, 5.0, 5.0]])
    loss, value = pivot_loss(margins, labels, rivals, Step())

    def nll(margin: float) -> float:
        return math.log1p(math.exp(-margin))

    # Two safe pivots, one unsafe; the unsafe one without a rival and the one that is not taught count nothing.
    assert float(loss) == pytest.approx((nll(2.0) + nll(-1.0)) / 2 + nll(0.5))
    assert value == pytest.approx(float(loss))
    assert pivot_loss(margins, labels, torch.full_like(rivals, IGNORED), Step())[1] == 0.0


def test_the_margin_is_between_the_token_and_its_rival(adapted: Any) -> None:
    row = TokenRow(input_ids=(5, 6, 7), labels=(IGNORED, 6, 7), term=0, rivals=(IGNORED, IGNORED, 11))
    batch = _batch([row])
    with torch.no_grad():
        logits = adapted(input_ids=batch["input_ids"]).logits[0, 1]
        out = adapted(
            **{name: batch[name] for name in ("input_ids", "attention_mask", "labels", "rivals")}, taught_only=True
        )
    assert out.margins[0].tolist() == pytest.approx([0.0, float(logits[7] - logits[11])], abs=1e-4)


def test_pivots_are_told_apart_after_training(material: Material, tmp_path: Path) -> None:
    counts = train(str(tiny_folder()), REASONING_FIRST.rows(material)[:8], CONFIG, tmp_path, objective=PivotObjective())
    assert counts["loss_pivot"] < 0.6  # 1.39 where nothing is told apart: -log 1/2 for each kind


# Consistency.


def test_divergence_by_hand() -> None:
    plain, disguised = torch.tensor([math.log(3.0), 0.7]), torch.tensor([0.0, 0.7])
    found = verdict_divergence(plain, disguised)
    # 3/4 and 1/4 against a half each; and a verdict against itself.
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert found.tolist() == pytest.approx([expected, 0.0], abs=1e-6)


def test_the_undisguised_side_is_a_teacher() -> None:
    plain = torch.tensor([1.0], requires_grad=True)
    disguised = torch.tensor([0.0], requires_grad=True)
    verdict_divergence(plain, disguised).sum().backward()  # type: ignore[no-untyped-call]
    assert plain.grad is None
    # Its slope is the difference of the probabilities: sigmoid(0) - sigmoid(1).
    assert disguised.grad is not None
    assert float(disguised.grad) == pytest.approx(0.5 - 1 / (1 + math.exp(-1)))


def test_a_row_that_is_its_own_twin_is_consistent(adapted: Any, material: Material) -> None:
    """The other completion of a plain request, made by hand: the same tokens have the same verdict."""
    row = CONSISTENT.rows(material)[8]
    twin = row.model_copy(
        update={"other_input_ids": row.input_ids, "other_labels": row.labels, "other_rivals": row.rivals}
    )
    objective = ConsistencyObjective()
    with torch.no_grad():
        same = objective.loss(adapted, _batch([twin]), Step())[1]["consistency"]
        apart = objective.loss(adapted, _batch([row]), Step())[1]["consistency"]
    assert same == pytest.approx(0.0, abs=1e-6)
    assert apart > 1e-4


def test_rows_without_a_disguise_bear_the_paired_loss_alone(adapted: Any, material: Material) -> None:
    batch = _batch(CONSISTENT.rows(material)[2:6])
    with torch.no_grad():
        loss, values = ConsistencyObjective().loss(adapted, batch, Step())
        paired, _ = PairedObjective().loss(adapted, batch, Step())
    assert set(values) == {"refusal", "benign"}
    assert float(loss) == pytest.approx(float(paired))


def test_disguises_are_drawn_to_the_plain_verdict(adapted: Any, material: Material) -> None:
    """Gradient steps on the divergence alone make it smaller."""
    batch = _batch(CONSISTENT.rows(material)[8:])
    objective = ConsistencyObjective()
    optimiser = torch.optim.Adam([one for one in adapted.parameters() if one.requires_grad], lr=1e-3)
    seen = []
    for _ in range(8):
        full, values = objective.loss(adapted, batch, Step())
        paired, _ = PairedObjective().loss(adapted, batch, Step())
        optimiser.zero_grad()
        (full - paired).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seen.append(values["consistency"])
    assert seen[-1] < seen[0] / 2
