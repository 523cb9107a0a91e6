"""Adversarial training inside the model: latent (LAT) and in embedding space (CAT).

LAT: Sheshadri et al. 2024, arXiv 2407.15549. CAT: Xhonneux et al. 2024, arXiv 2405.15589. An attacker
moves the hidden states of the prompt, within a ball, until the harmful answer is likely; the model
is trained to refuse all the same. CAT is the case of one layer, the embeddings, and signed steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from forethought.train.objectives.base import Batch, Step
from forethought.train.objectives.means import mean_over_all, others_of, own_of, untaught
from forethought.train.objectives.paired import paired_loss
from forethought.train.objectives.perturbation import ball, perturbed, prompt_mask, states_entering
from forethought.train.objectives.weights import bare, inputs_of
from forethought.train.rows import TERMS

Deltas = dict[int, torch.Tensor]


@dataclass(frozen=True)
class LatentObjective:
    """Term 0 rows hold a refusal and, as the other completion, a harmful answer; term 1 rows are taught as they are."""

    layers: tuple[int, ...] = (0, 8, 16, 24, 30)
    """Layers whose input is perturbed, counted from 0, whose input is the embeddings; LAT's for 32 layers."""
    epsilon: float = 6.0
    """Radius of the ball around each token's state, in L2 norm."""
    relative: bool = False
    """True where epsilon is a share of the median norm of the states that are moved, as in CAT. The median, because the
    first token's state may be a hundred times the others."""
    inner_steps: int = 16
    inner_rate: float = 5e-2
    """Adam's rate; for signed steps, and where epsilon is relative, the length of a step as a share of the radius."""
    inner: Literal["adam", "sign"] = "adam"
    toward_weight: float = 0.5
    """Of the refusal under attack."""
    away_weight: float = 0.5
    """Of log(1 - p) of the harmful answer under attack."""
    clean_weight: float = 0.0
    """Of the refusal without the attack. The papers have no such term, since their models refuse to begin with; one
    that does not would see no harmful request as it is written, and learn to refuse disturbed states alone."""
    benign_weight: float = 1.5
    """Of the harmless rows, which are not attacked."""
    columns: tuple[str, ...] = ("other_input_ids", "other_labels")

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """toward + away under the attack, plus the refusals' own loss without it, plus the harmless rows'."""
        harmless = batch["term"] == TERMS.index("benign")
        loss = torch.zeros((), device=batch["term"].device)
        values: dict[str, float] = {}
        if step.summed(harmless.sum()) > 0:
            rows = torch.nonzero(harmless).flatten()
            # A process without harmless rows passes one on which nothing is taught: see `others_of`.
            inputs = inputs_of(batch, "", rows) if len(rows) else untaught(batch)
            out = model(**inputs, taught_only=True)
            terms = batch["term"][rows] if len(rows) else torch.full_like(batch["term"][:1], TERMS.index("benign"))
            benign, values = paired_loss(out.log_probs, out.taught, terms, 1.0, step)
            loss = loss + self.benign_weight * benign
        others = others_of(batch, step)
        if others is None:
            return loss, values
        rows, complying = others
        refusing = own_of(batch, rows)
        if self.clean_weight > 0:
            out = model(**refusing, taught_only=True)
            clean, values["clean"] = _mean_over_all(-out.log_probs, out, step)
            loss = loss + self.clean_weight * clean
        deltas, first, last = self.attack(model, refusing, complying)
        with perturbed(model, deltas, prompt_mask(refusing["labels"])):
            out = model(**refusing, taught_only=True)
        toward, toward_value = _mean_over_all(-out.log_probs, out, step)
        with perturbed(model, deltas, prompt_mask(complying["labels"])):
            out = model(**complying, taught_only=True)
        away, away_value = _mean_over_all(unlikely(out.log_probs), out, step)
        values |= {"toward": toward_value, "away": away_value, "attack_gain": first - last}
        return loss + self.toward_weight * toward + self.away_weight * away, values

    def attack(self, model: Any, refusing: Batch, complying: Batch) -> tuple[Deltas, float, float]:
        """(perturbation by layer of shape (rows, prompt tokens, width), attacked loss before, and after).

        The attack makes the harmful answer likely and the refusal unlikely. No weight's gradient is touched.
        """
        own = bare(model)  # a parallel wrapper must see the training passes alone
        width = int(max(prompt_mask(refusing["labels"]).sum(1)))
        states = states_entering(own, self.layers, complying, width)
        radius = {
            at: self.epsilon * (float(one.norm(dim=-1).median()) if self.relative else 1.0)
            for at, one in states.items()
        }
        deltas = {at: torch.zeros_like(one).requires_grad_() for at, one in states.items()}
        optimiser = self._adam(deltas, radius) if self.inner == "adam" else None
        losses = []
        for _ in range(self.inner_steps):
            found = self._attacked(own, deltas, refusing, complying)
            losses.append(float(found.detach()))
            gradients = torch.autograd.grad(found, list(deltas.values()))
            with torch.no_grad():
                for (at, delta), gradient in zip(deltas.items(), gradients, strict=True):
                    delta.grad = gradient
                    if optimiser is None:
                        delta -= self._stride(delta, radius[at]) * gradient.sign()
                if optimiser is not None:
                    optimiser.step()
                for at, delta in deltas.items():
                    delta.copy_(ball(delta, radius[at]))
        fixed = {at: delta.detach() for at, delta in deltas.items()}
        with torch.no_grad():
            last = float(self._attacked(own, fixed, refusing, complying))
        return fixed, losses[0] if losses else last, last

    def _stride(self, delta: torch.Tensor, radius: float) -> float:
        """How far one coordinate moves in a signed step: all together `inner_rate` times the radius."""
        return self.inner_rate * radius / math.sqrt(delta.shape[-1])

    def _adam(self, deltas: Deltas, radius: Mapping[int, float]) -> torch.optim.Adam:
        """Adam, with steps in proportion to each layer's radius where that is in proportion to its states."""
        groups = [
            {"params": [delta], "lr": self._stride(delta, radius[at]) if self.relative else self.inner_rate}
            for at, delta in deltas.items()
        ]
        return torch.optim.Adam(groups)

    def _attacked(
        self, model: Any, deltas: Mapping[int, torch.Tensor], refusing: Batch, complying: Batch
    ) -> torch.Tensor:
        """What the attacker minimises."""
        with perturbed(model, deltas, prompt_mask(complying["labels"])):
            out = model(**complying, taught_only=True)
        toward = _mean(-out.log_probs, out)
        with perturbed(model, deltas, prompt_mask(refusing["labels"])):
            out = model(**refusing, taught_only=True)
        return toward + _mean(unlikely(out.log_probs), out)


def unlikely(log_probs: torch.Tensor) -> torch.Tensor:
    """-log(1 - p) of each token: bounded below, so that it can't be driven for ever. Any shape."""
    return -torch.log1p(-log_probs.exp().clamp(max=1 - 1e-6))


def _mean(values: torch.Tensor, out: Any) -> torch.Tensor:
    """Mean over the taught tokens of this process's batch, 0 where there are none."""
    mean: torch.Tensor = (values * out.taught).sum() / out.taught.sum().clamp(min=1)
    return mean


def _mean_over_all(values: torch.Tensor, out: Any, step: Step) -> tuple[torch.Tensor, float]:
    """(loss, value) of the mean over the taught tokens of all processes."""
    return mean_over_all((values * out.taught).sum(), out.taught.sum(), step)
