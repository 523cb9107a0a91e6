"""Methods on hidden states: circuit breakers (RR), latent (LAT) and embedding-space (CAT) adversarial training.

RR, representation rerouting: Zou et al. 2024, arXiv 2406.04313. On harmful answers the hidden states are turned away
from where the base model has them (their cosine falls to zero); on all else they stay. No refusal is taught: a broken
circuit ends in gibberish or silence.

LAT: Sheshadri et al. 2024, arXiv 2407.15549. CAT: Xhonneux et al. 2024, arXiv 2405.15589. An attacker moves the hidden
states of the prompt, within a ball, until the harmful answer is likely; the model is trained to refuse all the same.
CAT is the case of one layer, the embeddings, and signed steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from forethought.training.methods.base import Material, TrainingMethod
from forethought.training.objective import (
    Batch,
    Step,
    at_depths,
    bare,
    before_training,
    inputs_of,
    layers_of,
    mean_over_all,
    others_of,
    own_of,
    paired_loss,
    untaught,
)
from forethought.training.rows import IGNORED, TERMS, TokenRow, with_other

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


Deltas = dict[int, "torch.Tensor"]


def refusal_against_harm(material: Material) -> list[TokenRow]:
    """Refusals with the base model's harmful answer as the other completion; harmless answers alone."""
    rows = []
    for example in material.answered("refusal"):
        complying = material.complying(example)
        if complying is not None:
            rows.append(with_other(material.row(example, reasoning=False), material.row(complying, reasoning=False)))
    return rows + [material.row(example, reasoning=False) for example in material.answered("benign")]


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

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """toward + away under the attack, plus the refusals' own loss without it, plus the harmless rows'."""
        import torch

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
        import torch

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
        import torch

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
    import torch

    return -torch.log1p(-log_probs.exp().clamp(max=1 - 1e-6))


def _mean(values: torch.Tensor, out: Any) -> torch.Tensor:
    """Mean over the taught tokens of this process's batch, 0 where there are none."""
    mean: torch.Tensor = (values * out.taught).sum() / out.taught.sum().clamp(min=1)
    return mean


def _mean_over_all(values: torch.Tensor, out: Any, step: Step) -> tuple[torch.Tensor, float]:
    """(loss, value) of the mean over the taught tokens of all processes."""
    return mean_over_all((values * out.taught).sum(), out.taught.sum(), step)


def prompt_mask(labels: torch.Tensor) -> torch.Tensor:
    """(batch, tokens): true before the first taught token of each row."""
    before: torch.Tensor = (labels != IGNORED).cumsum(1) == 0
    return before


def ball(delta: torch.Tensor, radius: float) -> torch.Tensor:
    """Each token's vector (last dimension) pulled back to the L2 ball."""
    norm = delta.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    pulled: torch.Tensor = delta * (radius / norm).clamp(max=1.0)
    return pulled


def states_entering(model: Any, layers: Sequence[int], inputs: Batch, tokens: int) -> dict[int, torch.Tensor]:
    """The first `tokens` states entering each layer, (batch, tokens, width), by layer."""
    import torch

    asked = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        states = model(**asked, taught_only=True, output_hidden_states=True).hidden_states
    return {layer: states[layer][:, :tokens].detach().float() for layer in layers}


@contextmanager
def perturbed(model: Any, deltas: Mapping[int, torch.Tensor], where: torch.Tensor) -> Iterator[None]:
    """While it lasts, each delta (batch, n tokens, width) is added to the first n states entering its layer.

    `where` (batch, tokens) is true for the tokens that may be moved: the prompt's.
    """
    import torch

    blocks = layers_of(model)

    def add(delta: torch.Tensor) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            states = args[0] if args else kwargs["hidden_states"]
            n = min(delta.shape[1], states.shape[1])
            shift = torch.zeros_like(states)
            shift[:, :n] = (delta[:, :n] * where[:, :n].unsqueeze(-1)).to(states.dtype)
            moved = states + shift
            return ((moved, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": moved})

        return hook

    handles = [blocks[layer].register_forward_pre_hook(add(delta), with_kwargs=True) for layer, delta in deltas.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


LATENT_ADVERSARIAL = TrainingMethod(
    name="latent_adversarial",
    title="Latent adversarial training (LAT)",
    paper="Sheshadri et al. 2024, arXiv 2407.15549",
    cost="the base model's answers to harmful requests; about 35 passes over each harmful row, not one",
    when_to_choose="unforeseen attacks are expected, and training may take longer",
    rows=refusal_against_harm,
    # The paper's radius of 6 stands for 7B models. Beside the states of a small one it is twice an embedding and a
    # thirtieth of a middle layer's state, so that it is a share here.
    objective=lambda _, n_layers: LatentObjective(
        layers=at_depths((0, 8, 16, 24, 30), n_layers), epsilon=0.3, relative=True, inner_rate=0.2, clean_weight=0.5
    ),
    thinks=False,
    needs_complied=True,
)
CONTINUOUS_ADVERSARIAL = TrainingMethod(
    name="continuous_adversarial",
    title="Continuous adversarial training in embedding space (CAT)",
    paper="Xhonneux et al. 2024, arXiv 2405.15589",
    cost="the base model's answers to harmful requests; about 23 passes over each harmful row, not one",
    when_to_choose="optimised suffixes are expected, and R2D2 is out of reach",
    rows=refusal_against_harm,
    objective=lambda _, n_layers: LatentObjective(
        layers=(0,),
        epsilon=0.05,
        relative=True,
        inner_steps=10,
        inner_rate=0.2,
        inner="sign",
        benign_weight=1.0,
        clean_weight=0.5,
    ),
    thinks=False,
    needs_complied=True,
)

METHODS = (CIRCUIT_BREAKER, LATENT_ADVERSARIAL, CONTINUOUS_ADVERSARIAL)
