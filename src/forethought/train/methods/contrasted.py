"""Methods that set one completion against another: preference, circuit breakers, adversarial training."""

from __future__ import annotations

from collections.abc import Iterator

from forethought.reasoning import SafetyReasoning
from forethought.records import Example
from forethought.train.config import TrainConfig
from forethought.train.methods.base import Material, TrainingMethod
from forethought.train.objectives.base import Objective
from forethought.train.objectives.circuit_breaker import CircuitBreakerObjective
from forethought.train.objectives.latent import LatentObjective
from forethought.train.objectives.preference import PreferenceObjective
from forethought.train.rows import TERMS, TokenRow, with_other

_REFUSAL = TERMS.index("refusal")


def _answered(material: Material, term: str) -> Iterator[Example]:
    return (example for example in material.examples if example.term == term and example.answer)


def _complying(material: Material, example: Example) -> Example | None:
    """The example with the base model's own harmful answer, where it gave one. It was cut: no end is taught."""
    answer = material.complied.get(example.request.id)
    return example.model_copy(update={"answer": answer, "answer_complete": False}) if answer else None


def harmful_and_harmless(material: Material) -> list[TokenRow]:
    """Harmful answers as term 0, to be turned away from; harmless answers and refusals as term 1, to be kept."""
    rows = []
    for example in _answered(material, "refusal"):
        complying = _complying(material, example)
        if complying is not None:
            rows.append(material.row(complying, reasoning=False))
            # Refusing is behaviour to keep, too: the paper's retain set holds refusals.
            rows.append(material.row(example, reasoning=False).model_copy(update={"term": 1 - _REFUSAL}))
    return rows + [material.row(example, reasoning=False) for example in _answered(material, "benign")]


def refusal_against_harm(material: Material) -> list[TokenRow]:
    """Refusals with the base model's harmful answer as the other completion; harmless answers alone."""
    rows = []
    for example in _answered(material, "refusal"):
        complying = _complying(material, example)
        if complying is not None:
            rows.append(with_other(material.row(example, reasoning=False), material.row(complying, reasoning=False)))
    return rows + [material.row(example, reasoning=False) for example in _answered(material, "benign")]


def reasoned_against_wrong(material: Material) -> list[TokenRow]:
    """Right thoughts against the opposite verdict: compliance with harm, and refusal of what is harmless.

    The other completion of a harmful row complies and gives the base model's own answer; that of a harmless row
    refuses, naming the first rule of the policy: over-refusal is rejected as much as harm is.
    """
    rows = []
    for example in material.examples:
        own = material.row(example, reasoning=True)
        if example.term == "refusal":
            wrong: Example | None = _complying(material, example)
            verdict = SafetyReasoning(intent=example.reasoning.intent, verdict="comply")
        else:
            wrong = example.model_copy(update={"answer": "", "answer_complete": False})
            verdict = SafetyReasoning(intent=example.reasoning.intent, verdict="refuse")
        if wrong is None:
            rows.append(own)
            continue
        rows.append(with_other(own, material.row(wrong.model_copy(update={"reasoning": verdict}), reasoning=True)))
    return rows


def at_depths(of_32: tuple[int, ...], n_layers: int) -> tuple[int, ...]:
    """Layers at the depths that a paper gives for 32 layers, each once."""
    return tuple(sorted({min(round(n_layers * layer / 32), n_layers - 1) for layer in of_32}))


def _circuit_breaker(config: TrainConfig, n_layers: int) -> Objective:
    return CircuitBreakerObjective(layers=at_depths((10, 20), n_layers))


def _latent(config: TrainConfig, n_layers: int) -> Objective:
    # The paper's radius of 6 stands for 7B models. Beside the states of a small one it is twice an embedding and a
    # thirtieth of a middle layer's state, so that it is a share here.
    return LatentObjective(
        layers=at_depths((0, 8, 16, 24, 30), n_layers), epsilon=0.3, relative=True, inner_rate=0.2, clean_weight=0.5
    )


def _embedding(config: TrainConfig, n_layers: int) -> Objective:
    return LatentObjective(
        layers=(0,), epsilon=0.05, relative=True, inner_steps=10, inner_rate=0.2, inner="sign", benign_weight=1.0,
        clean_weight=0.5,
    )  # fmt: skip


def _preference(config: TrainConfig, n_layers: int) -> Objective:
    return PreferenceObjective(benign_weight=config.benign_weight)


CIRCUIT_BREAKER = TrainingMethod(
    name="circuit_breaker",
    title="Circuit breakers (RR)",
    paper="Zou et al. 2024, arXiv 2406.04313",
    rows=harmful_and_harmless,
    objective=_circuit_breaker,
    thinks=False,
    needs_complied=True,
    # As in the paper's code, nothing above the last rerouted layer is adapted: it could make up for what is turned. The
    # cosine has no slope where both states are the same, so that the adapter does not begin at nothing.
    settings={"skip_layers": 0, "depth": 21 / 32, "initial_noise": 0.01},
)
LATENT_ADVERSARIAL = TrainingMethod(
    name="latent_adversarial",
    title="Latent adversarial training (LAT)",
    paper="Sheshadri et al. 2024, arXiv 2407.15549",
    rows=refusal_against_harm,
    objective=_latent,
    thinks=False,
    needs_complied=True,
)
CONTINUOUS_ADVERSARIAL = TrainingMethod(
    name="continuous_adversarial",
    title="Continuous adversarial training in embedding space (CAT)",
    paper="Xhonneux et al. 2024, arXiv 2405.15589",
    rows=refusal_against_harm,
    objective=_embedding,
    thinks=False,
    needs_complied=True,
)
PREFERENCE = TrainingMethod(
    name="scot_dpo",
    title="SCoT by preference (DPO)",
    paper="Rafailov et al. 2023, arXiv 2305.18290; pairs in the manner of STAIR, Zhang et al. 2025, arXiv 2502.02384",
    rows=reasoned_against_wrong,
    objective=_preference,
    needs_complied=True,
)
