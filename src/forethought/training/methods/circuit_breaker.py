"""Circuit breakers: representation rerouting (RR), Zou et al. 2024, arXiv 2406.04313.

On harmful answers the hidden states are turned away from where the base model has them (their
cosine falls to zero); on all else they stay. No refusal is taught: a broken circuit ends in
gibberish or silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forethought.training.methods.base import Material, TrainingMethod
from forethought.training.objective import Batch, Step, at_depths, before_training, inputs_of, mean_over_all
from forethought.training.rows import IGNORED, TERMS, TokenRow

if TYPE_CHECKING:
    import torch


_LEAST = 1e-3
"""Smallest norm that a distance is divided by."""


def harmful_and_harmless(material: Material) -> list[TokenRow]:
    """Harmful answers as term 0, to be turned away from; harmless answers and refusals as term 1, to be kept."""
    rows = []
    for example in material.answered("refusal"):
        complying = material.complying(example)
        if complying is not None:
            rows.append(material.row(complying, reasoning=False))
            # Refusing is behaviour to keep, too: the paper's retain set holds refusals.
            rows.append(material.row(example, reasoning=False).model_copy(update={"term": TERMS.index("benign")}))
    return rows + [material.row(example, reasoning=False) for example in material.answered("benign")]


@dataclass(frozen=True)
class CircuitBreakerObjective:
    """Term 0 rows hold harmful answers to be broken, term 1 rows are to stay as they are."""

    layers: tuple[int, ...] = (10, 20)
    """Layers whose output is rerouted, counted from 1; the paper's for 32 layers."""
    alpha: float = 10.0
    """Weight of both terms; the schedule moves it from rerouting to retaining."""
    scale: float = 5.0
    """Weight of the retain term once its distances are shares of a state's norm. At 2 the embedded model lost its
    ordinary answers with the harmful ones; at 5 it kept them, and little was rerouted in 90 steps (from an adapter that
    began at nothing, on all layers)."""

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """alpha (1 - t/2T) reroute + alpha t/2T scale retain, for step t of T."""
        import torch

        inputs = inputs_of(batch)
        taught = inputs.pop("labels") != IGNORED  # B T
        with torch.no_grad(), before_training(model):
            before = model(**inputs, taught_only=True, output_hidden_states=True).hidden_states
        now = model(**inputs, taught_only=True, output_hidden_states=True).hidden_states
        harmful = (batch["term"] == 0).unsqueeze(1)
        share = step.number / (2 * step.total)
        chosen, chosen_before = [now[i] for i in self.layers], [before[i] for i in self.layers]
        reroute, rerouted = reroute_loss(chosen, chosen_before, taught & harmful, step)
        retain, retained = retain_loss(now, before, (batch["attention_mask"] == 1) & ~harmful, step)
        values = {"reroute": rerouted, "retain": retained}
        return self.alpha * ((1 - share) * reroute + share * self.scale * retain), values


def reroute_loss(
    now: Sequence[torch.Tensor], before: Sequence[torch.Tensor], where: torch.Tensor, step: Step
) -> tuple[torch.Tensor, float]:
    """(loss, value): mean of relu(cos(now, before)) over layers and the tokens of `where` (batch, tokens) in all
    processes; 0 without tokens."""
    import torch
    from torch.nn.functional import cosine_similarity, relu

    sums = [
        relu(cosine_similarity(a[where].float(), b[where].float(), dim=-1)).sum()
        for a, b in zip(now, before, strict=True)
    ]
    return mean_over_all(torch.stack(sums).mean(), where.sum(), step)


def retain_loss(
    now: Sequence[torch.Tensor], before: Sequence[torch.Tensor], where: torch.Tensor, step: Step
) -> tuple[torch.Tensor, float]:
    """(loss, value): mean over layers and the tokens of `where` (batch, tokens) in all processes of the L2 distance,
    as a share of the state's own norm; 0 without tokens.

    The share, because norms differ a hundredfold between models and layers, and a first token that serves as a sink of
    attention has a hundred times the norm of the others: it alone would be kept, and nothing rerouted.
    """
    import torch

    sums = [
        ((a[where].float() - b[where].float()).norm(dim=-1) / b[where].float().norm(dim=-1).clamp(min=_LEAST)).sum()
        for a, b in zip(now, before, strict=True)
    ]
    return mean_over_all(torch.stack(sums).mean(), where.sum(), step)


CIRCUIT_BREAKER = TrainingMethod(
    name="circuit_breaker",
    title="Circuit breakers (RR)",
    paper="Zou et al. 2024, arXiv 2406.04313",
    cost="the base model's answers to harmful requests; two forward passes a step; nothing at inference",
    when_to_choose="attacks put words into the model's mouth; garbled answers to harmful requests are acceptable",
    trains="a LoRA adapter on all linear layers",
    rows=harmful_and_harmless,
    objective=lambda _, n_layers: CircuitBreakerObjective(layers=at_depths((10, 20), n_layers)),
    thinks=False,
    needs_complied=True,
    # As in the paper's code, nothing above the last rerouted layer is adapted: it could make up for what is turned. The
    # cosine has no slope where both states are the same, so that the adapter does not begin at nothing.
    settings={"skip_layers": 0, "depth": 21 / 32, "initial_noise": 0.01},
)

METHODS = (CIRCUIT_BREAKER,)
