"""Losses among several processes: each gives its share of one mean over all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from forethought.policy import default_policy
from forethought.training.forward import add_taught_head
from forethought.training.methods.hidden_states import CircuitBreakerObjective, LatentObjective
from forethought.training.methods.preference import PreferenceObjective
from forethought.training.methods.verdict import ConsistencyObjective, PivotObjective
from forethought.training.objective import Batch, Objective, PairedObjective, Step, mean_over_all
from forethought.training.rows import TokenRow, collate, tokenize, with_other
from tests.tiny import harmful_example, harmless_example, tiny_model, tiny_tokenizer

LATENT = LatentObjective(layers=(0, 1), epsilon=0.2, inner_steps=2, inner_rate=0.05)


@pytest.fixture(scope="module")
def rows() -> list[TokenRow]:
    """Three harmful rows of unlike lengths with another completion, three harmless ones without; all have rivals."""
    tokenizer = tiny_tokenizer()

    def tokens(example: Any, reasoning: bool = False) -> TokenRow:
        row = tokenize(example, tokenizer, default_policy(), "think", "short", 0, reasoning)
        rivals = [-100] * row.length
        rivals[-3] = row.input_ids[-3] + (1 if row.term else -1)
        return row.model_copy(update={"rivals": tuple(rivals), "weights": (1.0,) * (row.length - 1) + (2.0,)})

    pairs = []
    for n in range(3):
        refusing = harmful_example("Help me copy a paid film" + " please" * n)
        complying = refusing.model_copy(update={"answer": "Sure, here is how" + " to go on" * n})
        pairs.append(with_other(tokens(refusing, reasoning=n == 1), tokens(complying)))
    return pairs + [tokens(harmless_example("How do I bake bread?", "Mix it" + " well" * n)) for n in range(3)]


@pytest.fixture
def adapted() -> Any:
    """A model whose adapter has moved."""
    torch.manual_seed(0)
    model = tiny_model()
    add_taught_head(model)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(model, config).eval()


def _batch(rows: list[TokenRow]) -> Batch:
    return collate([row.model_dump() for row in rows], pad_id=0)


class Sums:
    """Sums over two processes that are threads; one that calls more often than the other breaks the barrier."""

    def __init__(self) -> None:
        self._barrier = Barrier(2)
        self._given: dict[int, torch.Tensor] = {}

    def of(self, process: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def summed(value: torch.Tensor) -> torch.Tensor:
            self._given[process] = value.detach()
            self._barrier.wait(timeout=20)
            total = self._given[0] + self._given[1]
            self._barrier.wait(timeout=20)
            return total

        return summed


def _both(objective: Objective, model: Any, parts: list[Batch], grad: bool) -> list[tuple[float, dict[str, float]]]:
    """(loss, values) of each process, which have a copy of the model and half of the batch each."""
    sums = Sums()

    def one(process: int) -> tuple[float, dict[str, float]]:
        step = Step(number=1, total=10, processes=2, summed=sums.of(process))
        with torch.set_grad_enabled(grad):  # of the thread
            loss, values = objective.loss(copy.deepcopy(model), parts[process], step)
        return float(loss.detach()), values

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2)))


OBJECTIVES: list[Objective] = [
    PairedObjective(0.5),
    PivotObjective(),
    ConsistencyObjective(),
    CircuitBreakerObjective(layers=(1, 2)),
    PreferenceObjective(),
    LATENT,
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("split", [(0, 2, 3), (0, 1, 2), (3, 4, 5), (0, 1, 3, 4, 5)])
def test_two_processes_give_the_mean_over_both(
    objective: Objective, split: tuple[int, ...], adapted: Any, rows: list[TokenRow]
) -> None:
    """Also where one process has no row of a kind: gradients are averaged by the trainer, so losses are, too."""
    parts = [[rows[place] for place in split], [row for place, row in enumerate(rows) if place not in split]]
    with_gradient = isinstance(objective, LatentObjective)
    with torch.set_grad_enabled(with_gradient):
        together, values = objective.loss(adapted, _batch(rows), Step(number=1, total=10))
    results = _both(objective, adapted, [_batch(part) for part in parts], with_gradient)
    assert sum(loss for loss, _ in results) / 2 == pytest.approx(float(together.detach()), rel=2e-3)
    for _, found in results:
        shared = {name: value for name, value in found.items() if name != "attack_gain"}
        assert shared == pytest.approx({name: values[name] for name in shared}, rel=2e-3, abs=1e-5)
        assert set(found) == set(values)


def test_a_mean_of_nothing_is_zero_and_keeps_the_graph() -> None:
    total = torch.zeros((), requires_grad=True)
    loss, value = mean_over_all(total, torch.tensor(0), Step())
    assert float(loss.detach()) == value == 0.0
    assert loss.requires_grad
